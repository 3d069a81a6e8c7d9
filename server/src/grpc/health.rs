//! Health by name: what each may say, and when.

use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};

pub use tonic_health::server::HealthReporter;

/// What a name of health depends on.
#[derive(Debug, Clone, Copy)]
enum Depends {
    /// Nothing: who is answered at all speaks with a process that runs its loop.
    Alive,
    /// The store and the bundles are open.
    Open,
    /// And encoders gave a right vector lately.
    Encoding,
    /// And the disk takes writes.
    Writing,
}

/// The names that health knows: the server as a whole, `live` and `ready` for probes, and every service.
const NAMES: [(&str, Depends); 10] = [
    ("", Depends::Encoding),
    ("live", Depends::Alive),
    ("ready", Depends::Encoding),
    ("diptych.v1.AdminService", Depends::Open),
    ("diptych.v1.CollectionService", Depends::Open),
    ("diptych.v1.EmbeddingService", Depends::Encoding),
    ("diptych.v1.InfoService", Depends::Open),
    ("diptych.v1.ItemService", Depends::Writing),
    ("diptych.v1.OperationService", Depends::Open),
    ("diptych.v1.SearchService", Depends::Encoding),
];

/// What health tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conditions {
    /// The store and the bundles are open, and the server is not going down.
    pub open: bool,
    /// Inputs become right vectors.
    pub encoding: bool,
    /// Items can be written.
    pub writing: bool,
}

impl Conditions {
    /// All, or nothing.
    pub fn all(well: bool) -> Self {
        Self { open: well, encoding: well, writing: well }
    }

    fn allow(self, depends: Depends) -> bool {
        match depends {
            Depends::Alive => true,
            Depends::Open => self.open,
            Depends::Encoding => self.open && self.encoding,
            Depends::Writing => self.open && self.encoding && self.writing,
        }
    }
}

/// Health that says NOT_SERVING for every name but `live` until told otherwise.
pub async fn health() -> (HealthReporter, HealthServer<impl Health>) {
    let (reporter, service) = tonic_health::server::health_reporter();
    set_health(&reporter, false).await;
    (reporter, service)
}

/// Says that all is well, or nothing.
pub async fn set_health(reporter: &HealthReporter, well: bool) {
    set_health_of(reporter, Conditions::all(well)).await;
}

/// Says SERVING or NOT_SERVING for every name.
pub async fn set_health_of(reporter: &HealthReporter, conditions: Conditions) {
    for (name, depends) in NAMES {
        let status = match conditions.allow(depends) {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        };
        reporter.set_service_status(name, status).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_well_while_all_that_it_depends_on_is() {
        let well = |conditions: Conditions| -> Vec<&str> {
            let allowed = NAMES.into_iter().filter(|(_, depends)| conditions.allow(*depends));
            allowed.map(|(name, _)| name).collect()
        };
        assert_eq!(well(Conditions::all(false)), ["live"]);
        assert_eq!(well(Conditions::all(true)).len(), NAMES.len());
        let full_disk = well(Conditions { writing: false, ..Conditions::all(true) });
        assert_eq!(full_disk.len(), NAMES.len() - 1);
        assert!(!full_disk.contains(&"diptych.v1.ItemService") && full_disk.contains(&"ready"));
        let mute = well(Conditions { encoding: false, ..Conditions::all(true) });
        assert!(!mute.contains(&"ready") && !mute.contains(&"diptych.v1.SearchService"));
        assert!(mute.contains(&"diptych.v1.CollectionService"));
    }
}
