use proptest::prelude::*;

use super::*;
use crate::encoding;

const DIMS: usize = 5;

fn place() -> Place {
    Place { collection: 7, slot: Slot::ALL[2], number: 3 }
}

const ALL: [VectorStorage; 3] = [VectorStorage::F32, VectorStorage::I16, VectorStorage::I8];

fn sample(rows: usize, storage: VectorStorage) -> (Vec<u64>, Matrix) {
    let mut matrix = Matrix::with_capacity(DIMS, storage, rows);
    for row in 0..rows {
        let vector: Vec<f32> = (0..DIMS).map(|n| ((row * DIMS + n) as f32).sin()).collect();
        matrix.push(&encoding::rounded(storage, &vector));
    }
    ((0..rows as u64).map(|n| 10 + 3 * n).collect(), matrix)
}

fn segment(rows: usize, storage: VectorStorage) -> Segment {
    let (versions, matrix) = sample(rows, storage);
    Segment::new(3, versions, vec![None; rows], Body::Rows(matrix))
}

fn written(folder: &Path, rows: usize) -> (Files, SegmentRecord) {
    let files = Files::open(folder.join("index"), &[]);
    let record = files.write(&place(), &segment(rows, VectorStorage::I16)).unwrap();
    (files, record)
}

const FORM: (usize, VectorStorage) = (DIMS, VectorStorage::I16);

#[test]
fn what_was_written_is_read_back() {
    for (rows, storage) in [1, 2, 60_000].into_iter().zip(ALL) {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::open(folder.path().join("index"), &[]);
        let record = files.write(&place(), &segment(rows, storage)).unwrap();
        let (versions, matrix) = sample(rows, storage);
        let stored = files.read(&place(), &record, (DIMS, storage)).unwrap();
        assert_eq!((stored.versions, stored.ef_search), (versions, 0));
        assert!(matches!(stored.body, Body::Rows(read) if read == matrix));
        assert_eq!((record.rows, record.through), (rows as u64, 10 + 3 * (rows as u64 - 1)));
    }
}

proptest! {
    #[test]
    fn a_file_cut_or_flipped_anywhere_is_noticed(
        at in any::<prop::sample::Index>(),
        by in 1_u8..,
        cut in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (files, record) = written(folder.path(), 20);
        let path = files.path(&place());
        let mut bytes = fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] ^= by;
        }
        fs::write(&path, bytes).unwrap();
        let fault = files.read(&place(), &record, FORM).unwrap_err();
        let expected = if cut {
            matches!(fault, FileFault::Length { .. })
        } else {
            matches!(fault, FileFault::Checksum)
        };
        prop_assert!(expected, "{fault}");
    }
}

#[test]
fn a_missing_file_and_one_of_another_segment_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let (files, record) = written(folder.path(), 4);
    let other = Place { number: 4, ..place() };
    assert!(matches!(files.read(&other, &record, FORM), Err(FileFault::Missing)));
    fs::rename(files.path(&place()), files.path(&other)).unwrap();
    let renamed = SegmentRecord { number: 4, ..record.clone() };
    assert!(matches!(files.read(&other, &renamed, FORM), Err(FileFault::Foreign)));
    fs::rename(files.path(&other), files.path(&place())).unwrap();
    assert!(matches!(files.read(&place(), &record, (DIMS + 1, FORM.1)), Err(FileFault::Foreign)));
    let more = SegmentRecord { rows: 1 << 60, ..record };
    assert!(matches!(files.read(&place(), &more, FORM), Err(FileFault::Foreign)));
}

#[test]
fn files_that_are_not_named_go_at_start_and_the_others_stay() {
    let folder = tempfile::tempdir().unwrap();
    let (files, record) = written(folder.path(), 4);
    let index = folder.path().join("index");
    fs::write(index.join("7/2-3.new"), "left by a process that died").unwrap();
    fs::write(index.join("7/1-3.rows"), "another slot").unwrap();
    fs::create_dir(index.join("8")).unwrap();
    fs::write(index.join("8/0-1.rows"), "a dropped collection").unwrap();
    let again = Files::open(index.clone(), &[place()]);
    assert!(again.read(&place(), &record, FORM).is_ok());
    assert_eq!(list(&index.join("7")).len(), 1);
    assert!(!index.join("8").exists());
    assert_eq!(again.fresh_number(), 4);
    drop(files);
}

#[test]
fn a_disk_that_refuses_leaves_nothing_and_a_later_try_succeeds() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::open(folder.path().join("index"), &[]);
    let segment = segment(4, FORM.1);
    fs::write(folder.path().join("index"), "in the way").unwrap();
    assert!(matches!(files.write(&place(), &segment), Err(FileFault::Io(_))));
    fs::remove_file(folder.path().join("index")).unwrap();
    let record = files.write(&place(), &segment).unwrap();
    assert!(files.read(&place(), &record, FORM).is_ok());
}

#[test]
fn a_disk_that_fills_up_at_any_byte_is_an_error() {
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.0);
            self.0 -= taken;
            if taken == 0 { Err(ErrorKind::StorageFull.into()) } else { Ok(taken) }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (versions, matrix) = sample(4, VectorStorage::I8);
    let place = place();
    let head = Head { place: &place, dims: DIMS, ef_search: 64 };
    let contents = (versions.as_slice(), Some(&matrix));
    let mut whole = Vec::new();
    write_to(&mut whole, &head, contents).unwrap();
    for room in 0..whole.len() {
        let error = write_to(&mut Full(room), &head, contents).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
    }
    assert!(write_to(&mut Full(whole.len()), &head, contents).is_ok());
}
