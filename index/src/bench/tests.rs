use std::fs;

use super::*;
use crate::graph::Sequence;

fn random(rows: usize, dims: usize, seed: u64) -> Matrix {
    let mut sequence = Sequence::new(seed);
    let values: Vec<f32> =
        (0..rows * dims).map(|_| sequence.below(2_000_001) as f32 / 1e6 - 1.0).collect();
    Matrix::from_values(&values, dims).unwrap()
}

#[test]
fn a_wide_walk_over_few_rows_finds_all_that_a_scan_finds() {
    let folder = tempfile::tempdir().unwrap();
    for builder in [BuilderKind::Native, BuilderKind::HnswRs] {
        let file = (builder == BuilderKind::Native).then(|| folder.path().join("graph"));
        let params = Params::default();
        let plan = Plan { builder, params, threads: 2, k: 10, allowed_share: None, file };
        let bench = Bench::build(random(500, 20, 1), random(20, 20, 2), &plan).unwrap();
        let report = bench.sweep(&[500], 1).unwrap();
        assert_eq!(report.points[0].recall, 1.0, "{builder:?}");
        assert_eq!(report.reaching(0.99).unwrap().ef, 500);
        assert_eq!(report.to_json()["build"]["rows"], 500);
        assert!(report.to_string().contains("| 500 | 1.0000 |"));
    }
}

#[test]
fn rows_and_queries_of_different_lengths_are_refused() {
    let plan = Plan {
        builder: BuilderKind::Native,
        params: Params::default(),
        threads: 1,
        k: 10,
        allowed_share: None,
        file: None,
    };
    let error = Bench::build(random(5, 20, 1), random(5, 21, 2), &plan).unwrap_err();
    assert_eq!(error.to_string(), "rows of 20 and queries of 21 components");
}

/// Two rows, (3, 4, 0) and (0, 0, -2), as the two formats hold them.
#[test]
fn both_formats_give_the_same_unit_rows() {
    let folder = tempfile::tempdir().unwrap();
    let rows: [[f32; 3]; 2] = [[3.0, 4.0, 0.0], [0.0, 0.0, -2.0]];
    let bytes = |row: &[f32; 3]| row.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let mut npy = b"\x93NUMPY\x01\x00\x46\x00".to_vec();
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
    npy.extend(format!("{header:<69}\n").bytes());
    let mut fvecs = Vec::new();
    for row in &rows {
        npy.extend(bytes(row));
        fvecs.extend(3_i32.to_le_bytes());
        fvecs.extend(bytes(row));
    }
    for (name, bytes) in [("x.npy", &npy), ("x.fvecs", &fvecs)] {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let matrix = Matrix::read(&path).unwrap();
        assert_eq!((matrix.len(), matrix.dims()), (2, 3));
        assert_eq!((matrix.row(0), matrix.row(1)), (&[0.6, 0.8, 0.0][..], &[0.0, 0.0, -1.0][..]));
        for length in 0..bytes.len() {
            fs::write(&path, &bytes[..length]).unwrap();
            // Of fvecs, the first row alone is a whole file.
            let whole = name == "x.fvecs" && length == bytes.len() / 2;
            assert_eq!(Matrix::read(&path).is_ok(), whole, "{name} cut to {length}");
        }
    }
    let error = Matrix::read(&folder.path().join("x.bin")).unwrap_err();
    assert!(matches!(error, ReadError::Io { .. }));
}
