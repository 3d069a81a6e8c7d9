//! Names that nobody knows: told, with the one that was probably meant.

use super::flags::Key;

/// Variables that begin as ours do and belong to other programs of the project.
const OTHERS: [&str; 4] = ["DIPTYCH_CONFIG", "DIPTYCH_SERVER", "DIPTYCH_PYTHON", "DIPTYCH_TOOLS"];

/// Notes every environment variable that begins as ours do and is none of ours: a slip of the pen, not a wish.
pub(super) fn check_environment(
    variables: impl Iterator<Item = (String, String)>,
    keys: &[Key],
    faults: &mut Vec<String>,
) {
    let known = || keys.iter().map(|key| key.variable.as_str());
    for (name, value) in variables.filter(|(name, _)| name.starts_with("DIPTYCH_")) {
        if known().any(|known| known == name)
            || OTHERS.contains(&name.as_str())
            || is_service_link(&name, &value)
        {
            continue;
        }
        let hint = nearest(&name, known());
        faults.push(format!("the environment variable {name} is unknown{hint}"));
    }
}

/// Whether Kubernetes made this variable: every pod is told of the services of its namespace, and a service named `diptych` is
/// likely to be among them.
fn is_service_link(name: &str, value: &str) -> bool {
    let of_port = |protocol| name.contains("_PORT_") && name.contains(protocol);
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || ["_TCP", "_UDP", "_SCTP"].into_iter().any(of_port)
        || ["tcp://", "udp://", "sctp://"].into_iter().any(|scheme| value.starts_with(scheme))
}

/// "; did you mean x?" with the known name that takes the fewest changes to reach, when they are few.
pub(super) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    const MOST_CHANGES: usize = 3;
    let distances =
        known.into_iter().map(|known| (distance(name.as_bytes(), known.as_bytes()), known));
    match distances.min() {
        Some((changes, known)) if changes <= MOST_CHANGES => format!("; did you mean {known}?"),
        _ => String::new(),
    }
}

/// Levenshtein's distance: the fewest bytes inserted, removed or replaced.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Flags;

    #[test]
    fn a_name_that_is_nearly_right_is_suggested() {
        let known = ["listen", "ops_listen", "log"];
        assert_eq!(nearest("lisen", known), "; did you mean listen?");
        assert_eq!(nearest("ops-listen", known), "; did you mean ops_listen?");
        assert_eq!(nearest("completely_else", known), "");
    }

    #[test]
    fn only_slips_of_the_pen_are_told() {
        let variables = [
            ("HOME", "/root"),
            ("DIPTYCH_LISTEN", "127.0.0.1:1"),
            ("DIPTYCH_SERVER", "http://127.0.0.1:1"),
            ("DIPTYCH_SERVICE_HOST", "10.0.0.1"),
            ("DIPTYCH_SERVICE_PORT_GRPC", "50051"),
            ("DIPTYCH_PORT", "tcp://10.0.0.1:50051"),
            ("DIPTYCH_HEADLESS_PORT_50051_TCP_ADDR", "10.0.0.1"),
            ("DIPTYCH_PORTS", "1"),
            ("DIPTYCH_DATADIR", "/data"),
        ];
        let mut faults = Vec::new();
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        check_environment(variables.into_iter(), &Flags::keys(), &mut faults);
        assert_eq!(
            faults,
            [
                "the environment variable DIPTYCH_PORTS is unknown",
                "the environment variable DIPTYCH_DATADIR is unknown; did you mean DIPTYCH_DATA_DIR?",
            ]
        );
    }
}
