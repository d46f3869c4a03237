//! Version ranges as the languages write them, against the catalogue's layers.

use semver::{Version, VersionReq};

use crate::contract::CatalogueLayer;
use crate::errors::Problem;

/// Chooses the highest layer of `name` inside a range; gives a note when the range asks for one exact release and another
/// of the same line serves: a line is patched by the platform, so one release cannot be held.
///
/// # Errors
/// When there is no such layer; names those that exist.
pub fn choose<'c>(
    catalogue: &'c [CatalogueLayer],
    name: &'static str,
    runtime: &'static str,
    file: &'static str,
    wanted: Option<&str>,
    depth: usize,
) -> Result<(&'c CatalogueLayer, Option<String>), Problem> {
    let mut layers: Vec<(Version, &CatalogueLayer)> = catalogue
        .iter()
        .filter(|layer| layer.kind == "runtime" && layer.name == name)
        .filter_map(|layer| Some((Version::parse(&layer.version).ok()?, layer)))
        .collect();
    layers.sort_by(|a, b| b.0.cmp(&a.0));
    let Some(highest) = layers.first() else { return Err(Problem::NoLayer { name }) };
    let Some(text) = wanted.map(str::trim).filter(|text| !text.is_empty()) else { return Ok((highest.1, None)) };
    let missing = || Problem::NoSuchVersion {
        runtime,
        wanted: text.to_owned(),
        file,
        available: layers.iter().map(|(version, _)| version.to_string()).collect(),
    };
    let ranges = parse(text).ok_or_else(missing)?;
    if let Some((_, layer)) = layers.iter().find(|(version, _)| ranges.iter().any(|range| range.matches(version))) {
        return Ok((layer, None));
    }
    // Only the release inside a line differs: the line is what an app is bound to.
    let same_line = layers.iter().find(|(version, _)| {
        ranges.iter().any(|range| {
            range.comparators.iter().all(|part| {
                part.major == version.major && (depth < 2 || part.minor.is_none_or(|minor| minor == version.minor))
            }) && !range.comparators.is_empty()
        })
    });
    let (version, layer) = same_line.ok_or_else(missing)?;
    Ok((
        layer,
        Some(format!("{file} asks for {runtime} {text}; the platform keeps this line patched and provides {version}")),
    ))
}

/// As [`choose`], for a file that says a version to tools at home: when it is not there, the highest is taken and the note
/// says so.
///
/// # Errors
/// When there is no layer of this name at all.
pub fn prefer<'c>(
    catalogue: &'c [CatalogueLayer],
    name: &'static str,
    runtime: &'static str,
    file: &'static str,
    wanted: Option<&str>,
    depth: usize,
) -> Result<(&'c CatalogueLayer, Option<String>), Problem> {
    match choose(catalogue, name, runtime, file, wanted, depth) {
        Err(Problem::NoSuchVersion { wanted, .. }) => {
            let (layer, _) = choose(catalogue, name, runtime, file, None, depth)?;
            let wanted: String = wanted.chars().filter(|c| !c.is_control()).take(40).collect();
            let note = format!(
                "{file} asks for {runtime} {wanted}, which is not available here: building with {}.",
                layer.version
            );
            Ok((layer, Some(note)))
        }
        chosen => chosen,
    }
}

/// The first line of such a file that is neither empty nor a comment.
#[must_use]
pub fn first_line(text: &str) -> Option<&str> {
    text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()).find(|line| !line.is_empty())
}

/// Alternatives of a range in npm's or pip's spelling: `>=18 <23`, `18 || 20`, `22.x`, `^22.1`, `1.2 - 2`, `~=3.11`, `==3.11.*`.
fn parse(text: &str) -> Option<Vec<VersionReq>> {
    text.split("||").map(alternative).collect()
}

fn alternative(text: &str) -> Option<VersionReq> {
    let text = text.trim();
    if text.is_empty() || ["*", "x", "latest", "node", "lts/*", "stable"].contains(&text) {
        return Some(VersionReq::STAR);
    }
    if let Some((low, high)) = text.split_once(" - ") {
        return VersionReq::parse(&format!(">={}, <={}", bare(low), bare(high))).ok();
    }
    let mut parts = Vec::new();
    let mut operator = String::new();
    for token in text.replace(',', " ").split_whitespace() {
        let at = token.find(|c: char| !"<>=~^!".contains(c)).unwrap_or(token.len());
        operator += &token[..at];
        let version = &token[at..];
        if version.is_empty() {
            continue;
        }
        parts.push(match operator.as_str() {
            // npm: a bare partial version is that line, a full one that release.
            "" | "=" | "==" | "===" => format!("={}", bare(version)),
            // pip: at least this, inside all but the last given part.
            "~=" if version.matches('.').count() >= 2 => format!("~{}", bare(version)),
            "~=" => format!("^{}", bare(version)),
            "!=" => {
                operator.clear();
                continue;
            }
            known @ (">" | ">=" | "<" | "<=" | "^" | "~") => format!("{known}{}", bare(version)),
            _ => return None,
        });
        operator.clear();
    }
    if !operator.is_empty() || parts.is_empty() {
        return None;
    }
    if parts == ["="] {
        return Some(VersionReq::STAR);
    }
    VersionReq::parse(&parts.join(", ")).ok()
}

/// Without a leading `v`, `python-`, or wildcards at the end.
fn bare(version: &str) -> String {
    let version = version.trim().trim_start_matches('v');
    let parts: Vec<&str> = version.split('.').take_while(|part| !["x", "X", "*"].contains(part)).collect();
    parts.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalogue() -> Vec<CatalogueLayer> {
        ["20.19.0", "22.23.3"]
            .iter()
            .map(|version| CatalogueLayer {
                digest: version.repeat(8),
                kind: "runtime".into(),
                name: "node".into(),
                line: format!("node-{}", &version[..2]),
                version: (*version).into(),
            })
            .collect()
    }

    #[test]
    fn ranges() {
        let catalogue = catalogue();
        for (range, line) in [
            (None, "node-22"),
            (Some(""), "node-22"),
            (Some("*"), "node-22"),
            (Some("22"), "node-22"),
            (Some("20"), "node-20"),
            (Some("20.x"), "node-20"),
            (Some("v20"), "node-20"),
            (Some("^20.1.0"), "node-20"),
            (Some(">=18"), "node-22"),
            (Some(">= 18 < 22"), "node-20"),
            (Some(">=18.0.0 <=20.x"), "node-20"),
            (Some("18 || 20"), "node-20"),
            (Some("18 - 21"), "node-20"),
            (Some("~22.23.0"), "node-22"),
            (Some("==22.*"), "node-22"),
            (Some("lts/*"), "node-22"),
        ] {
            let (layer, note) = choose(&catalogue, "node", "Node.js", "package.json", range, 1).unwrap();
            assert_eq!((layer.line.as_str(), note), (line, None), "{range:?}");
        }
        // One release inside a line: served by the line, and said.
        let (layer, note) = choose(&catalogue, "node", "Node.js", "package.json", Some("20.11.1"), 1).unwrap();
        assert_eq!(layer.line, "node-20");
        assert!(note.unwrap().contains("20.19.0"));
        for range in ["18", ">=24", "banana", "<18", ">=", "16.x || 18.x"] {
            let Err(Problem::NoSuchVersion { available, .. }) =
                choose(&catalogue, "node", "Node.js", "package.json", Some(range), 1)
            else {
                panic!("{range} was accepted")
            };
            assert_eq!(available, ["22.23.3", "20.19.0"]);
        }
        assert_eq!(choose(&[], "node", "Node.js", "x", None, 1), Err(Problem::NoLayer { name: "node" }));
    }

    #[test]
    fn a_version_for_tools_at_home_is_met_when_it_can_be() {
        let catalogue = catalogue();
        let prefer = |text: &str| prefer(&catalogue, "node", "Node.js", ".nvmrc", first_line(text), 1).unwrap();
        for (text, line) in
            [("20\n", "node-20"), ("# ours\n\nv22.1.0 # now\n", "node-22"), ("", "node-22"), ("lts/*", "node-22")]
        {
            assert_eq!(prefer(text).0.line, line, "{text:?}");
        }
        let (layer, note) = prefer("18.2");
        let note = note.unwrap();
        assert!(layer.line == "node-22" && note.contains(".nvmrc") && note.contains("18.2"), "{note}");
    }

    #[test]
    fn python_lines_are_two_numbers() {
        let mut layer = catalogue().remove(0);
        (layer.name, layer.version) = ("python".into(), "3.11.2".into());
        let catalogue = [layer];
        for good in ["3.11", "3.11.x", "3.11.9", ">=3.9,<4", "~=3.11", "~=3.11.0", "==3.11.*"] {
            assert!(choose(&catalogue, "python", "Python", "runtime.txt", Some(good), 2).is_ok(), "{good}");
        }
        for bad in ["3.12", "3.12.1", "2.7", ">=3.12"] {
            assert!(choose(&catalogue, "python", "Python", "runtime.txt", Some(bad), 2).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_answered(text in "[0-9a-zA-Z.<>=~^|*, -]{0,20}") {
            let _ = choose(&catalogue(), "node", "Node.js", "package.json", Some(&text), 1);
        }
    }
}
