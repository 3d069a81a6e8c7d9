//! The limit of the control groups that the process is in, as containers set it.

use std::fs;
use std::path::{Component, Path};

/// Bytes that the kernel lets the process and those beside it in its container have; `None` without a limit.
pub fn limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    limit_below(Path::new("/sys/fs/cgroup"), &groups)
}

/// The least of the limits of all groups that `/proc/self/cgroup` names and of those around them, below the place where they are
/// mounted: `memory.max` of the one hierarchy of version 2, `memory.limit_in_bytes` of version 1's own for memory.
fn limit_below(root: &Path, groups: &str) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let (base, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => return None,
        };
        // Seen from inside a container, a path may lead out of what is mounted there.
        let inside = |part: &Component<'_>| matches!(part, Component::Normal(_));
        let path: std::path::PathBuf = Path::new(path).components().filter(inside).collect();
        let around = path.ancestors().map(|group| base.join(group).join(file));
        around.filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok()).min()
    });
    // Version 1 says "none" by the largest number of whole pages.
    limits.min().filter(|limit| *limit < 1 << 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (place, content) in files {
            let place = root.path().join(place);
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::write(place, content).unwrap();
        }
        root
    }

    #[test]
    fn the_least_limit_of_a_group_and_those_around_it_holds() {
        let root = groups(&[
            ("memory.max", "max\n"),
            ("pods/memory.max", "1000\n"),
            ("pods/one/memory.max", "4000\n"),
        ]);
        assert_eq!(limit_below(root.path(), "0::/pods/one\n"), Some(1000));
        assert_eq!(limit_below(root.path(), "0::/../../pods/one\n"), Some(1000));
        assert_eq!(limit_below(root.path(), "0::/\n"), None);
        assert_eq!(limit_below(root.path(), "0::/elsewhere\n"), None);
    }

    #[test]
    fn of_version_1_the_hierarchy_of_memory_counts_and_its_largest_number_is_no_limit() {
        let root = groups(&[
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory/box/memory.limit_in_bytes", "5000\n"),
        ]);
        let lines = "5:cpu,cpuacct:/box\n4:memory:/box\n0::/box\n";
        assert_eq!(limit_below(root.path(), lines), Some(5000));
        assert_eq!(limit_below(root.path(), "4:memory:/\n"), None);
    }

    #[test]
    fn what_is_no_list_of_groups_limits_nothing() {
        for lines in ["", "\n", "nonsense", "1:memory", "::::"] {
            assert_eq!(limit_below(Path::new("/nowhere"), lines), None, "{lines:?}");
        }
    }
}
