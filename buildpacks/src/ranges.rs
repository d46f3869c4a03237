//! Ranges of versions as the languages write them: npm's by `js-semver`, pip's by `pep440_rs`.

use semver::Version;

use crate::versions::Runtime;

/// What npm takes at most. What is longer is no range that somebody wrote.
const MAX_LENGTH: usize = 256;
/// Names of the newest release in `.nvmrc` and its like. Only the newest of each line is here.
const NEWEST: [&str; 6] = ["*", "x", "latest", "node", "lts/*", "stable"];

/// A range of versions of one runtime.
pub(crate) struct Range {
    rules: Rules,
    /// The versions that bound it; what is not given is 0.
    bounds: Vec<[u64; 3]>,
}

enum Rules {
    Npm(js_semver::Range),
    Pip(pep440_rs::VersionSpecifiers),
}

impl Range {
    /// Reads a range by the rules of its runtime.
    pub(crate) fn parse(runtime: Runtime, text: &str) -> Option<Self> {
        if text.len() > MAX_LENGTH {
            return None;
        }
        let text = if NEWEST.contains(&text) { "" } else { text };
        let rules = match runtime {
            // npm knows no commas; people write them, as for pip.
            Runtime::Node => Rules::Npm(js_semver::Range::parse(&text.replace(',', " ")).ok()?),
            Runtime::Python => Rules::Pip(specifiers(text)?),
        };
        let words = text.split(|c: char| !c.is_ascii_digit() && c != '.').filter(|word| !word.is_empty());
        Some(Self { rules, bounds: words.map(numbers).collect() })
    }

    /// Whether this release is inside.
    pub(crate) fn holds(&self, version: &Version) -> bool {
        let version = version.to_string();
        match &self.rules {
            Rules::Npm(range) => js_semver::Version::parse(&version).is_ok_and(|version| range.satisfies(&version)),
            Rules::Pip(range) => version.parse().is_ok_and(|version| range.contains(&version)),
        }
    }

    /// Whether any release of the same line is inside, available or not. If so, then the first of the line is, or one at a
    /// bound of the range, or the next one behind it.
    pub(crate) fn meets_line(&self, version: &Version) -> bool {
        let line = match self.rules {
            Rules::Npm(_) => Version::new(version.major, 0, 0),
            Rules::Pip(_) => Version::new(version.major, version.minor, 0),
        };
        let inside = |version: &Version| match self.rules {
            Rules::Npm(_) => version.major == line.major,
            Rules::Pip(_) => (version.major, version.minor) == (line.major, line.minor),
        };
        let near = self.bounds.iter().flat_map(|&[major, minor, patch]| {
            [(minor, patch), (minor, patch.saturating_add(1)), (minor.saturating_add(1), 0)]
                .map(|(minor, patch)| Version::new(major, minor, patch))
        });
        self.holds(&line) || near.filter(inside).any(|version| self.holds(&version))
    }
}

fn numbers(word: &str) -> [u64; 3] {
    let mut parts = word.split('.').map(|part| part.parse().unwrap_or(0));
    std::array::from_fn(|_| parts.next().unwrap_or(0))
}

/// What pip reads, and what `runtime.txt` and its like hold: a version alone, which is a line unless it is a whole release.
fn specifiers(text: &str) -> Option<pep440_rs::VersionSpecifiers> {
    let plain = text.trim_start_matches('v').replace(['x', 'X'], "*");
    let plain = plain.split(".*").next().unwrap_or_default();
    if plain.is_empty() || !plain.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return text.parse().ok();
    }
    let line = if plain.split('.').count() < 3 { ".*" } else { "" };
    format!("=={plain}{line}").parse().ok()
}
