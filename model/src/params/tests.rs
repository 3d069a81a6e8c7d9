use std::collections::BTreeMap;

use candle_core::{DType, Device, DeviceLocation, Tensor};

use super::{Init, Params, compute_dtype};
use crate::error::Kind;

fn drawn(seed: u64, name: &str, init: Init) -> Vec<f32> {
    let params = Params::seeded(seed, &Device::Cpu);
    params.get(name, &[40_000], init).unwrap().to_vec1().unwrap()
}

#[test]
fn values_depend_on_the_seed_and_the_name_alone() {
    let normal = Init::Normal { std: 1.0 };
    assert_eq!(drawn(1, "a", normal), drawn(1, "a", normal));
    assert_ne!(drawn(1, "a", normal), drawn(2, "a", normal));
    assert_ne!(drawn(1, "a", normal), drawn(1, "b", normal));
    // The order of asks makes no difference.
    let [forth, back] = [["a", "b"], ["b", "a"]].map(|names| {
        let params = Params::seeded(1, &Device::Cpu);
        for name in names {
            params.get(name, &[3], normal).unwrap();
        }
        params.tensors().unwrap().into_values().map(|t| t.to_vec1::<f32>().unwrap()).collect()
    });
    let (forth, back): (Vec<_>, Vec<_>) = (forth, back);
    assert_eq!(forth, back);
}

#[test]
fn moments_are_those_of_the_distribution() {
    for (init, std) in [(Init::Normal { std: 0.5 }, 0.5), (Init::Kaiming { fan_in: 50 }, 0.2)] {
        let values = drawn(7, "weight", init);
        let count = values.len() as f64;
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / count;
        let square = values.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>() / count;
        // Five standard errors of either estimate.
        assert!(mean.abs() < 5.0 * std / count.sqrt(), "mean {mean}");
        assert!((square.sqrt() / std - 1.0).abs() < 5.0 / (2.0 * count).sqrt(), "{square}");
    }
}

#[test]
fn constants_are_what_they_say() {
    assert!(drawn(1, "a", Init::Zeros).iter().all(|&v| v == 0.0));
    assert!(drawn(1, "a", Init::Ones).iter().all(|&v| v == 1.0));
    assert!(drawn(1, "a", Init::Const(2.5)).iter().all(|&v| v == 2.5));
}

#[test]
fn variables_come_in_name_order_and_an_update_is_seen() {
    let params = Params::seeded(1, &Device::Cpu).with_dtype(DType::F64);
    let second = params.get("second", &[2], Init::Ones).unwrap();
    params.get("first", &[], Init::Zeros).unwrap();
    assert_eq!(params.vars().into_keys().collect::<Vec<_>>(), ["first", "second"]);
    let before = params.tensors().unwrap();
    params.vars()["second"].set(&second.affine(3.0, 0.0).unwrap()).unwrap();
    assert_eq!(second.to_vec1::<f64>().unwrap(), [3.0, 3.0]);
    assert_eq!(before["second"].to_vec1::<f64>().unwrap(), [1.0, 1.0], "a copy keeps its values");
}

#[test]
fn towers_compute_in_bf16_on_cuda_only_and_never_where_weights_are_f64() {
    let cuda = DeviceLocation::Cuda { gpu_id: 1 };
    assert_eq!(compute_dtype(cuda, DType::F32), DType::BF16);
    assert_eq!(compute_dtype(cuda, DType::F64), DType::F64);
    assert_eq!(compute_dtype(DeviceLocation::Cpu, DType::F32), DType::F32);
    assert_eq!(compute_dtype(DeviceLocation::Metal { gpu_id: 0 }, DType::F32), DType::F32);
    let params = Params::seeded(1, &Device::Cpu).with_compute_dtype(DType::BF16);
    let weight = params.get("a", &[2], Init::Ones).unwrap();
    assert_eq!((params.compute_dtype(), weight.dtype()), (DType::BF16, DType::F32));
}

#[test]
fn one_name_has_one_shape() {
    let params = Params::seeded(1, &Device::Cpu);
    params.get("a", &[2, 3], Init::Zeros).unwrap();
    let error = params.get("a", &[3, 2], Init::Zeros).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
}

#[test]
fn given_weights_must_match_in_name_and_shape_and_all_be_used() {
    let weight = Tensor::zeros((2, 3), DType::F16, &Device::Cpu).unwrap();
    let given = || {
        let tensors = BTreeMap::from([("a".to_owned(), weight.clone())]);
        Params::from_tensors(tensors, &Device::Cpu)
    };
    let params = given();
    assert_eq!(params.get("a", &[2, 3], Init::Ones).unwrap().dtype(), DType::F32);
    params.finish().unwrap();
    for (name, shape) in [("b", [2, 3]), ("a", [3, 2])] {
        let params = given();
        let error = params.get(name, &shape, Init::Zeros).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt);
        assert!(error.to_string().starts_with(name), "{error}");
        assert_eq!(params.finish().unwrap_err().kind(), Kind::Corrupt, "a is left over");
    }
}
