//! Which layer of a runtime an app gets, by the range of versions that its files ask for.

use semver::Version;

use crate::contract::CatalogueLayer;
use crate::errors::Problem;
use crate::ranges::Range;

/// A runtime whose version an app chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// Its releases are lines by the first number, its ranges those of npm.
    Node,
    /// Its releases are lines by the first two numbers, its ranges those of pip.
    Python,
}

impl Runtime {
    /// The name of its layers.
    #[must_use]
    pub fn layer(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Python => "python",
        }
    }

    /// Its name in messages.
    fn title(self) -> &'static str {
        match self {
            Self::Node => "Node.js",
            Self::Python => "Python",
        }
    }
}

/// The layers with this name, highest version first.
fn layers<'c>(catalogue: &'c [CatalogueLayer], name: &str) -> Vec<(Version, &'c CatalogueLayer)> {
    let mut layers: Vec<(Version, &CatalogueLayer)> = catalogue
        .iter()
        .filter(|layer| layer.kind == "runtime" && layer.name == name)
        .filter_map(|layer| Some((Version::parse(&layer.version).ok()?, layer)))
        .collect();
    layers.sort_by(|a, b| b.0.cmp(&a.0));
    layers
}

/// The highest layer of `name`.
///
/// # Errors
/// When there is none.
pub fn highest<'c>(catalogue: &'c [CatalogueLayer], name: &'static str) -> Result<&'c CatalogueLayer, Problem> {
    layers(catalogue, name).first().map(|(_, layer)| *layer).ok_or(Problem::NoLayer { name })
}

/// Chooses the highest layer of a runtime inside the range that `file` asks for; gives a note when the range leaves out the
/// release of a line and not the line: a line is patched by the platform, so one release cannot be held.
///
/// # Errors
/// When there is no such layer; names those that exist.
pub fn choose<'c>(
    catalogue: &'c [CatalogueLayer],
    runtime: Runtime,
    file: &'static str,
    wanted: Option<&str>,
) -> Result<(&'c CatalogueLayer, Option<String>), Problem> {
    let highest = highest(catalogue, runtime.layer())?;
    let Some(text) = wanted.map(str::trim).filter(|text| !text.is_empty()) else { return Ok((highest, None)) };
    let layers = layers(catalogue, runtime.layer());
    let missing = || Problem::NoSuchVersion {
        runtime: runtime.title(),
        wanted: text.to_owned(),
        file,
        available: layers.iter().map(|(version, _)| version.to_string()).collect(),
    };
    let range = Range::parse(runtime, text).ok_or_else(missing)?;
    if let Some((_, layer)) = layers.iter().find(|(version, _)| range.holds(version)) {
        return Ok((layer, None));
    }
    let (version, layer) = layers.iter().find(|(version, _)| range.meets_line(version)).ok_or_else(missing)?;
    let runtime = runtime.title();
    Ok((
        layer,
        Some(format!("{file} asks for {runtime} {text}; the platform keeps this line patched and provides {version}")),
    ))
}

/// As [`choose`], for a file that says a version to tools at home: when it is not there, the highest is taken and the note
/// says so.
///
/// # Errors
/// When there is no layer of this runtime at all.
pub fn prefer<'c>(
    catalogue: &'c [CatalogueLayer],
    runtime: Runtime,
    file: &'static str,
    wanted: Option<&str>,
) -> Result<(&'c CatalogueLayer, Option<String>), Problem> {
    match choose(catalogue, runtime, file, wanted) {
        Err(Problem::NoSuchVersion { wanted, runtime: title, .. }) => {
            let layer = highest(catalogue, runtime.layer())?;
            let wanted: String = wanted.chars().filter(|c| !c.is_control()).take(40).collect();
            let note = format!(
                "{file} asks for {title} {wanted}, which is not available here: building with {}.",
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
            (Some("^18 || >=20 <22"), "node-20"),
            (Some("^18||^20||^22"), "node-22"),
            (Some("20.x.x"), "node-20"),
            (Some(">=20.x <22.x"), "node-20"),
            (Some(">20"), "node-22"),
            (Some("18.0.0 - 20"), "node-20"),
            (Some("<=22"), "node-22"),
            (Some("~20 >=20.1"), "node-20"),
            (Some("=v20.19.0"), "node-20"),
            (Some(">=20, <21"), "node-20"),
            (Some("20 ||"), "node-22"),
        ] {
            let (layer, note) = choose(&catalogue, Runtime::Node, "package.json", range).unwrap();
            assert_eq!((layer.line.as_str(), note), (line, None), "{range:?}");
        }
        // One release inside a line: served by the line, and said.
        let (layer, note) = choose(&catalogue, Runtime::Node, "package.json", Some("20.11.1")).unwrap();
        assert_eq!(layer.line, "node-20");
        assert!(note.unwrap().contains("20.19.0"));
        for range in [">=22.24.1 <23", "^22.24", ">22.23.3 <23", ">22.24 <23", "16.x || ~22.25.1", "<22.1.0 >=22"] {
            let (layer, note) = choose(&catalogue, Runtime::Node, "package.json", Some(range)).unwrap();
            assert_eq!((layer.line.as_str(), note.is_some()), ("node-22", true), "{range}");
        }
        for range in [
            "18",
            ">=24",
            "banana",
            "<18",
            "<20",
            ">22",
            "16.x || 18.x",
            ">=21 <22",
            ">=24 <20",
            ">=22 <22",
            "20 banana",
            "lts/hydrogen",
            &"22 || ".repeat(60),
        ] {
            let Err(Problem::NoSuchVersion { available, .. }) =
                choose(&catalogue, Runtime::Node, "package.json", Some(range))
            else {
                panic!("{range} was accepted")
            };
            assert_eq!(available, ["22.23.3", "20.19.0"]);
        }
        assert_eq!(choose(&[], Runtime::Node, "x", None), Err(Problem::NoLayer { name: "node" }));
    }

    #[test]
    fn a_version_for_local_tools_is_met_when_possible() {
        let catalogue = catalogue();
        let prefer = |text: &str| prefer(&catalogue, Runtime::Node, ".nvmrc", first_line(text)).unwrap();
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
        let note = |text: &str| choose(&catalogue, Runtime::Python, "runtime.txt", Some(text)).map(|(_, note)| note);
        for good in [
            "3",
            "3.11",
            "3.11.x",
            "3.11.*",
            "3.11.2",
            "3.x",
            "*",
            ">=3.9,<4",
            ">= 3.11, < 3.13",
            "~=3.11",
            "~=3.11.0",
            "==3.11.*",
            ">3.11",
            "!=3.10.*",
            ">=3.9,!=3.11.1",
            "<=3.11.2",
            "===3.11.2",
        ] {
            assert_eq!(note(good), Ok(None), "{good}");
        }
        for line in ["3.11.9", "==3.11.9", "==3.11", ">=3.11.5,<3.12", "~=3.11.4", "<3.11.1,>=3.11"] {
            assert!(note(line).is_ok_and(|note| note.is_some()), "{line}");
        }
        for bad in [
            "3.12",
            "3.12.1",
            "3.12.x",
            "2.7",
            "4",
            ">=3.12",
            "<3.11",
            "~=3.12",
            "==3.12.*",
            ">=3.11,!=3.11.*",
            "^3.12",
            "banana",
            "~=3",
            "==",
            "~=3.18446744073709551615.1",
            "==18446744073709551615.*",
            "3.18446744073709551616",
        ] {
            assert!(choose(&catalogue, Runtime::Python, "runtime.txt", Some(bad)).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_answered(text in "[0-9a-zA-Z.<>=~^!|*, -]{0,20}") {
            for runtime in [Runtime::Node, Runtime::Python] {
                let mut catalogue = catalogue();
                catalogue[0].name = "python".into();
                let _ = choose(&catalogue, runtime, "package.json", Some(&text));
            }
        }
    }
}
