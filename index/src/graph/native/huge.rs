//! Memory in pages of two megabytes where the system has them.
//!
//! A walk jumps from row to row, and most jumps meet a page that the processor does not know the
//! place of: with pages of four kilobytes, finding it takes as long as fetching the row.
#![cfg_attr(
    target_os = "linux",
    expect(unsafe_code, reason = "the system is told about memory by its address")
)]

/// Smaller memory than this is left as it is.
const PAGE: usize = 2 << 20;

/// An empty vector with room for `count` values, for which the system was asked to use large pages.
/// It may do so or not; nothing but speed depends on it.
pub(super) fn with_room<T>(count: usize) -> Vec<T> {
    let room = Vec::with_capacity(count);
    advise(&room);
    room
}

#[cfg(target_os = "linux")]
fn advise<T>(room: &Vec<T>) {
    let bytes = room.capacity().saturating_mul(size_of::<T>());
    let start = room.as_ptr().cast::<u8>();
    let skip = start.align_offset(PAGE);
    let length = bytes.saturating_sub(skip) / PAGE * PAGE;
    if length == 0 {
        return;
    }
    let first = start.wrapping_add(skip).cast_mut().cast();
    // SAFETY: the range lies within the vector's own allocation, and this advice changes neither
    // what is in it nor who may use it. A kernel that knows no large pages refuses, which is well.
    let told = unsafe { rustix::mm::madvise(first, length, rustix::mm::Advice::LinuxHugepage) };
    tracing::trace!(?told, length, "asked for large pages");
}

#[cfg(not(target_os = "linux"))]
fn advise<T>(_room: &Vec<T>) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_and_small_rooms_hold_what_is_put_into_them() {
        for count in [0, 1, 1000, PAGE / 8, PAGE, 3 * PAGE / 8 + 17] {
            let mut room: Vec<u64> = with_room(count);
            room.extend(0..count as u64);
            assert!(room.capacity() >= count);
            assert!(room.iter().copied().eq(0..count as u64));
        }
    }
}
