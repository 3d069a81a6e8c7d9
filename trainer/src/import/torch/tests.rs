use half::{bf16, f16};

use super::super::testing::{Described, archive, state_dict};
use super::*;

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// What is read of a file with these tensors and storages.
fn read_of(tensors: &[Described<'_>], storages: &[(&str, &[u8])]) -> Result<Weights> {
    read_pickle(&state_dict(tensors), storages)
}

fn read_pickle(pickle: &[u8], storages: &[(&str, &[u8])]) -> Result<Weights> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.pth");
    let mut entries = vec![("name/data.pkl", pickle), ("name/byteorder", b"little".as_slice())];
    let names: Vec<String> = storages.iter().map(|(key, _)| format!("name/data/{key}")).collect();
    entries.extend(names.iter().map(String::as_str).zip(storages.iter().map(|(_, bytes)| *bytes)));
    archive(&path, &entries);
    read(&path)
}

fn of<'a>(name: &'a str, shape: &'a [i32], strides: &'a [i32]) -> Described<'a> {
    Described { name, storage: "FloatStorage", key: "0", elements: 6, offset: 0, shape, strides }
}

fn refused(tensor: Described<'_>, storage: &[u8]) -> String {
    read_of(&[tensor], &[("0", storage)]).unwrap_err().to_string()
}

const SIX: [f32; 6] = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];

#[test]
fn values_are_read_in_the_order_of_their_indices_whatever_the_strides() {
    let rows: [(&[i32], &[i32], &[f32]); 5] = [
        (&[2, 3], &[3, 1], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
        (&[2, 3], &[1, 2], &[0.0, 2.0, 4.0, 1.0, 3.0, 5.0]),
        (&[3, 1, 2], &[1, 1, 3], &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]),
        (&[2, 2], &[3, 2], &[0.0, 2.0, 3.0, 5.0]),
        (&[], &[], &[0.0]),
    ];
    for (shape, strides, expected) in rows {
        let weights = read_of(&[of("w", shape, strides)], &[("0", &floats(&SIX))]).unwrap();
        let flat = weights["w"].flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(flat, expected, "{shape:?} {strides:?}");
        let dims: Vec<i32> = weights["w"].dims().iter().map(|axis| *axis as i32).collect();
        assert_eq!(dims, shape);
    }
}

#[test]
fn an_offset_is_counted_in_elements_and_halves_stay_halves() {
    let halves: Vec<u8> =
        SIX.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect();
    let brains: Vec<u8> =
        SIX.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect();
    let part = |storage, key, name| Described { storage, key, offset: 2, ..of(name, &[3], &[1]) };
    let tensors = [part("HalfStorage", "0", "f16"), part("BFloat16Storage", "1", "bf16")];
    let weights = read_of(&tensors, &[("0", &halves), ("1", &brains)]).unwrap();
    for (name, dtype) in [("f16", DType::F16), ("bf16", DType::BF16)] {
        assert_eq!(weights[name].dtype(), dtype);
        let values = weights[name].to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values, [2.0, 3.0, 4.0]);
    }
}

#[test]
fn counters_are_left_out() {
    let counter = Described {
        storage: "LongStorage",
        elements: 1,
        key: "1",
        ..of("bn.num_batches_tracked", &[], &[])
    };
    let weights =
        read_of(&[of("w", &[6], &[1]), counter], &[("0", &floats(&SIX)), ("1", &[0; 8])]).unwrap();
    assert_eq!(weights.keys().collect::<Vec<_>>(), ["w"]);
}

#[test]
fn names_of_data_parallel_training_lose_what_it_put_before_them() {
    let tensors = [of("module.a", &[6], &[1]), of("module.b", &[2], &[1])];
    let weights = read_of(&tensors, &[("0", &floats(&SIX))]).unwrap();
    assert_eq!(weights.keys().collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn a_checkpoint_of_training_is_read_by_its_state_dict() {
    // {"epoch": 3, "state_dict": {...}}
    let inner = state_dict(&[of("w", &[6], &[1])]);
    let mut pickle = b"\x80\x02}(X\x05\x00\x00\x00epochK\x03X\x0a\x00\x00\x00state_dict".to_vec();
    pickle.extend(&inner[2..inner.len() - 1]);
    pickle.extend(b"u.");
    let weights = read_pickle(&pickle, &[("0", &floats(&SIX))]).unwrap();
    assert_eq!(weights.keys().collect::<Vec<_>>(), ["w"]);
}

#[test]
fn views_that_leave_their_storage_or_multiply_it_are_refused() {
    let storage = floats(&SIX);
    let rows = [
        (of("w", &[2, 4], &[3, 1]), "has 8 elements, its storage 6"),
        (of("w", &[2, 3], &[4, 1]), "reaches beyond the end"),
        (Described { offset: 1, ..of("w", &[6], &[1]) }, "reaches beyond the end"),
        (of("w", &[i32::MAX, i32::MAX, i32::MAX], &[0, 0, 0]), "is larger than can be"),
        (of("w", &[7], &[0]), "has 7 elements"),
        (of("w", &[6], &[-1]), "a size is negative"),
        (of("w", &[6, 1], &[1]), "another number of axes"),
    ];
    for (tensor, part) in rows {
        let told = refused(tensor, &storage);
        assert!(told.contains(part), "{part}: {told}");
    }
    let told = refused(of("w", &[6], &[1]), &storage[..20]);
    assert!(told.contains("20 bytes, 24 were told"), "{told}");
    let told = refused(of("w", &[6], &[1]), &[storage, vec![0; 4]].concat());
    assert!(told.contains("at most 24 are read"), "{told}");
    let told = refused(Described { key: "1", ..of("w", &[6], &[1]) }, &[]);
    assert!(told.contains("name/data/1"), "{told}");
}

#[test]
fn a_storage_that_a_thousand_names_share_is_refused() {
    let names: Vec<String> = (0..1000).map(|number| format!("w{number}")).collect();
    let large = floats(&vec![1.0; 60_000]);
    let one = |name| Described { elements: 60_000, ..of(name, &[60_000], &[1]) };
    let tensors: Vec<_> = names.iter().map(|name| one(name.as_str())).collect();
    let told = read_of(&tensors, &[("0", &large)]).unwrap_err().to_string();
    assert!(told.contains("times the bytes of the file"), "{told}");
}

#[test]
fn a_pickle_that_would_run_something_is_refused_and_runs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let witness = folder.path().join("ran");
    let command = format!("touch {}", witness.display());
    let mut pickle = b"\x80\x02cos\nsystem\nX".to_vec();
    pickle.extend(u32::try_from(command.len()).unwrap().to_le_bytes());
    pickle.extend(command.as_bytes());
    pickle.extend(b"\x85R.");
    let told = read_pickle(&pickle, &[]).unwrap_err().to_string();
    assert!(told.contains("os.system") && told.contains("state_dict()"), "{told}");
    assert!(!witness.exists());
}

/// A file as versions before 1.6 wrote it, of two tensors whose storages lie in another order than they.
fn bare(pickle: &[u8], storages: &[(&str, i64, &[u8])]) -> Vec<u8> {
    let mut out = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.".to_vec();
    out.extend(
        b"\x80\x02}(X\x10\x00\x00\x00protocol_versionM\xe9\x03X\x0d\x00\x00\x00little_endian\x88u.",
    );
    out.extend(pickle);
    out.extend(b"\x80\x02](");
    for (key, ..) in storages {
        out.push(b'X');
        out.extend(u32::try_from(key.len()).unwrap().to_le_bytes());
        out.extend(key.as_bytes());
    }
    out.extend(b"e.");
    for (_, elements, bytes) in storages {
        out.extend(elements.to_le_bytes());
        out.extend(*bytes);
    }
    out
}

#[test]
fn files_of_old_versions_are_read_and_held_to_their_sizes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("old.pth");
    let doubled: Vec<f32> = SIX.iter().map(|value| value * 2.0).collect();
    let (six, twice) = (floats(&SIX), floats(&doubled));
    let pickle = state_dict(&[
        of("a", &[2, 3], &[1, 2]),
        Described { key: "77", offset: 3, ..of("b", &[3], &[1]) },
    ]);
    let whole = bare(&pickle, &[("77", 6, &twice), ("0", 6, &six)]);
    std::fs::write(&path, &whole).unwrap();
    let weights = read(&path).unwrap();
    assert_eq!(weights["a"].to_vec2::<f32>().unwrap(), [[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]]);
    assert_eq!(weights["b"].to_vec1::<f32>().unwrap(), [6.0, 8.0, 10.0]);

    for length in (0..whole.len()).step_by(11) {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert!(read(&path).is_err(), "{length}");
    }
    for (storages, part) in [
        (
            &[("77", 6, twice.as_slice()), ("0", 5, six.as_slice())][..],
            "has 5 elements, 6 were told",
        ),
        (&[("0", 6, six.as_slice())][..], "is not in the file"),
        (&[("9", 6, six.as_slice()), ("0", 6, six.as_slice())][..], "is described nowhere"),
    ] {
        std::fs::write(&path, bare(&pickle, storages)).unwrap();
        let told = read(&path).unwrap_err().to_string();
        assert!(told.contains(part), "{part}: {told}");
    }
    std::fs::write(&path, bare(b"\x80\x02cos\nsystem\n.", &[])).unwrap();
    assert!(read(&path).unwrap_err().to_string().contains("os.system"));
}

#[test]
fn what_is_no_file_of_weights_is_told_by_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.pth");
    archive(&path, &[("readme.txt", b"hello")]);
    assert!(read(&path).unwrap_err().to_string().contains("without one data.pkl"));
    archive(&path, &[("n/data.pkl", b"."), ("n/constants.pkl", b"."), ("n/code/x.py", b"")]);
    assert!(read(&path).unwrap_err().to_string().contains("TorchScript"));
    archive(&path, &[("n/data.pkl", b"."), ("n/byteorder", b"big")]);
    assert!(read(&path).unwrap_err().to_string().contains("big-endian"));
    archive(&path, &[("n/data.pkl", b"\x80\x02]."), ("n/version", b"3\n")]);
    assert!(read(&path).unwrap_err().to_string().contains("something else than a dict"));
    std::fs::write(&path, b"PK\x03\x04 and no more").unwrap();
    assert!(read(&path).unwrap_err().to_string().contains("no zip file"));
}

#[test]
fn an_entry_that_says_it_is_compressed_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bomb.pth");
    archive(
        &path,
        &[("n/data.pkl", &state_dict(&[of("w", &[6], &[1])])), ("n/data/0", &floats(&SIX))],
    );
    // The method in both headers of each entry: deflate in place of stored.
    let mut bytes = std::fs::read(&path).unwrap();
    for at in 0..bytes.len() - 12 {
        let method = match &bytes[at..at + 4] {
            b"PK\x03\x04" => 8,
            b"PK\x01\x02" => 10,
            _ => continue,
        };
        bytes[at + method] = 8;
    }
    std::fs::write(&path, bytes).unwrap();
    assert!(read(&path).is_err());
}
