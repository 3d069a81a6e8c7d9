//! Where a run computes: `--device cpu` or `--device cuda:N`, chosen when it starts.
//!
//! Nothing else names a device. Weights are made on this one, pixels come to it at the model's door,
//! and what else a step needs is made where the tensors are that it goes with.

use candle_core::Device;
use clap::Args;

use crate::error::{Error, Result};

/// The flag that names the device.
const FLAG: &str = "--device";

/// The flag, for commands that compute.
#[derive(Debug, Clone, Args)]
pub struct DeviceArgs {
    /// Where to compute: `cpu`, or `cuda:N` in a build with CUDA (see docs/cuda.md).
    #[arg(long, default_value = "cpu")]
    pub device: String,
}

/// A device as the command line writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Cpu,
    /// The number that the driver gives it.
    Cuda(usize),
}

/// Opens the device called `name`: `cpu`, or `cuda:N` with N counted from 0.
///
/// # Errors
/// [`Error::Setting`] that names `--device`, if the name is another, this build has no CUDA, or the
/// driver does not give the device.
pub fn open(name: &str) -> Result<Device> {
    match parse(name)? {
        Name::Cpu => Ok(Device::Cpu),
        Name::Cuda(_) if !cfg!(feature = "cuda") => {
            let message = format!(
                "`{name}` needs a build with CUDA: \
                 `cargo build --release -p diptych-train --features cuda` (docs/cuda.md)"
            );
            Err(Error::setting(FLAG, message))
        }
        Name::Cuda(number) => Device::new_cuda(number)
            .map_err(|error| Error::setting(FLAG, format!("`{name}` cannot be opened: {error}"))),
    }
}

fn parse(name: &str) -> Result<Name> {
    let number = name.strip_prefix("cuda:");
    // Digits alone: the parser would take a sign too.
    let number = number.filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
    match (name, number.and_then(|number| number.parse().ok())) {
        ("cpu", _) => Ok(Name::Cpu),
        (_, Some(number)) => Ok(Name::Cuda(number)),
        _ => {
            let message = format!("`{name}` is neither `cpu` nor `cuda:N`, N counted from 0");
            Err(Error::setting(FLAG, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Name, open, parse};

    #[test]
    fn the_cpu_and_numbered_cuda_devices_have_names() {
        assert_eq!(parse("cpu").unwrap(), Name::Cpu);
        assert_eq!(parse("cuda:0").unwrap(), Name::Cuda(0));
        assert_eq!(parse("cuda:12").unwrap(), Name::Cuda(12));
        assert!(open("cpu").unwrap().is_cpu());
    }

    #[test]
    fn another_name_is_refused_with_the_flag_and_the_right_ones() {
        for name in ["", "gpu", "CPU", "cuda", "cuda:", "cuda:-1", "cuda:+1", "cuda:1x", "cuda: 1"]
        {
            let message = open(name).unwrap_err().to_string();
            assert!(message.starts_with("setting `--device`: "), "{message}");
            assert!(message.contains("`cpu`") && message.contains("`cuda:N`"), "{message}");
        }
        let beyond = "cuda:99999999999999999999999";
        assert!(open(beyond).unwrap_err().to_string().contains(beyond));
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_build_without_cuda_says_how_to_make_one_with_it() {
        let message = open("cuda:0").unwrap_err().to_string();
        assert!(message.starts_with("setting `--device`: `cuda:0`"), "{message}");
        assert!(message.contains("--features cuda"), "{message}");
    }
}
