//! Which buildpacks run and which layers they need: pure, from the source's listing and the catalogue.
//!
//! The built-in buildpacks' part runs also when the developer named the buildpack and detection is skipped: the layers
//! follow from it.

use crate::contract::{BuildPlan, BuildRequest, CatalogueLayer, PlannedBuildpack, PlannedLayer};
use crate::errors::Problem;
use crate::langs::{Builtin, Needs};
use crate::source::Source;

/// What is known about a foreign buildpack after its `bin/detect` was asked.
pub type Foreign<'a> = &'a mut dyn FnMut(usize) -> Result<Option<String>, Problem>;

/// Names of the app's directory that are shown when nothing was detected.
const SHOWN: usize = 12;

/// A plan, and notes for the developer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// For the cell.
    pub plan: BuildPlan,
    /// To be printed.
    pub notes: Vec<String>,
}

/// Chooses buildpacks and layers. `foreign` runs `bin/detect` of the request's buildpack at an index and gives its words, or
/// `None` when it declines; it is not asked when detection is skipped.
///
/// # Errors
/// When nothing fits, or a wanted version is not in the catalogue.
pub fn plan(request: &BuildRequest, source: &dyn Source, foreign: Foreign<'_>) -> Result<Planned, Problem> {
    if request.buildpacks.is_empty() {
        return Err(Problem::NoBuildpacks);
    }
    let mut chosen = Vec::new();
    let mut broken = Vec::new();
    for (index, buildpack) in request.buildpacks.iter().enumerate() {
        let detected = match &buildpack.builtin {
            Some(name) => {
                let builtin = Builtin::named(name).ok_or_else(|| Problem::UnknownBuildpack(name.clone()))?;
                (request.skip_detect || builtin.detects(request, source)).then(|| builtin.key().to_owned())
            }
            None if request.skip_detect => Some(String::new()),
            None => match foreign(index) {
                // One broken buildpack must not stop the apps of everybody that another one would have taken.
                Err(problem @ Problem::NotABuildpack { .. }) => {
                    broken.push(format!("Passed over: {}", problem.to_error().text));
                    None
                }
                answer => answer?,
            },
        };
        if let Some(detect_output) = detected {
            chosen.push(PlannedBuildpack { name: buildpack.name.clone(), index, detect_output });
            if !request.skip_detect {
                break;
            }
        }
    }
    if chosen.is_empty() {
        chosen.extend(site(request, source));
    }
    if chosen.is_empty() {
        let mut found = source.top(SHOWN + 1);
        if found.len() > SHOWN {
            found[SHOWN] = "…".into();
        }
        return Err(Problem::NothingDetected {
            tried: request.buildpacks.iter().map(|buildpack| buildpack.name.clone()).collect(),
            found,
            looks_like: crate::kinds::looks_like(source),
            broken,
        });
    }
    let mut notes = broken;
    let mut layers: Vec<PlannedLayer> = Vec::new();
    let mut start = None;
    for planned in &mut chosen {
        let needs = match &request.buildpacks[planned.index].builtin {
            Some(name) => {
                let builtin = Builtin::named(name).ok_or_else(|| Problem::UnknownBuildpack(name.clone()))?;
                builtin.needs(request, source)?
            }
            None => Needs::for_foreign(&request.catalogue),
        };
        if !needs.says.is_empty() {
            planned.detect_output.clone_from(&needs.says);
        }
        notes.extend(needs.notes);
        // The last one's process types are the app's.
        start = needs.start;
        for (layer, build_only) in needs.layers {
            add(&mut layers, layer, build_only);
        }
    }
    Ok(Planned { plan: BuildPlan { buildpacks: chosen, layers, start, error: None }, notes })
}

/// A directory with a page that nobody knows is a site: its page would be no reason to take an app from the others.
fn site(request: &BuildRequest, source: &dyn Source) -> Option<PlannedBuildpack> {
    if request.skip_detect || !Builtin::is_site(request, source) {
        return None;
    }
    let key = Builtin::Staticfile.key();
    let index = request.buildpacks.iter().position(|buildpack| buildpack.builtin.as_deref() == Some(key))?;
    Some(PlannedBuildpack { name: request.buildpacks[index].name.clone(), index, detect_output: key.to_owned() })
}

/// A layer that one buildpack needs at run time is a run-time layer, whatever the others say.
fn add(layers: &mut Vec<PlannedLayer>, layer: &CatalogueLayer, build_only: bool) {
    match layers.iter_mut().find(|known| known.digest == layer.digest) {
        Some(known) => known.build_only &= build_only,
        None => layers.push(PlannedLayer { digest: layer.digest.clone(), line: layer.line.clone(), build_only }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{BuildLimits, BuildPaths, BuildpackRequest};
    use crate::source::Listing;
    use crate::start::StartHint;

    fn layer(kind: &str, name: &str, line: &str, version: &str) -> CatalogueLayer {
        CatalogueLayer {
            digest: format!("digest-of-{line}"),
            kind: kind.into(),
            name: name.into(),
            line: line.into(),
            version: version.into(),
        }
    }

    pub(super) fn request(names: &[&str], skip_detect: bool) -> BuildRequest {
        BuildRequest {
            stack: "debian12".into(),
            env: Default::default(),
            skip_detect,
            buildpacks: names
                .iter()
                .map(|name| BuildpackRequest {
                    name: format!("{name}_buildpack"),
                    builtin: (*name != "foreign").then(|| (*name).to_owned()),
                    ..BuildpackRequest::default()
                })
                .collect(),
            catalogue: vec![
                layer("runtime", "node", "node-22", "22.23.3"),
                layer("runtime", "python", "cpython-3.11", "3.11.2"),
                layer("runtime", "nginx", "nginx-1.22", "1.22.1"),
                layer("build", "build", "build-debian12", "12.2.0"),
                layer("build", "node-headers", "node-22-headers", "22.23.3"),
            ],
            command: None,
            paths: BuildPaths::default(),
            limits: BuildLimits::default(),
        }
    }

    const ALL: [&str; 4] = ["staticfile", "nodejs", "python", "binary"];
    const ELF: &str = "\u{7f}ELF";

    fn lines(request: &BuildRequest, files: &[(&str, &str)]) -> Result<(String, Vec<String>), Problem> {
        let planned = plan(request, &Listing::of(files), &mut |_| Ok(None))?;
        let layers = planned
            .plan
            .layers
            .iter()
            .map(|layer| format!("{}{}", layer.line, if layer.build_only { " (build)" } else { "" }))
            .collect();
        Ok((planned.plan.buildpacks[0].name.clone(), layers))
    }

    #[test]
    fn each_source_gets_its_buildpack_and_layers() {
        let plain_lock = r#"{"lockfileVersion":3,"packages":{"node_modules/express":{"version":"4.0.0"}}}"#;
        let native_lock = r#"{"lockfileVersion":3,"packages":{"node_modules/x":{"hasInstallScript":true}}}"#;
        for (files, name, layers) in [
            (&[("package.json", "{}"), ("package-lock.json", plain_lock)][..], "nodejs", &["node-22"][..]),
            (
                &[("package.json", "{}"), ("package-lock.json", native_lock)],
                "nodejs",
                &["node-22", "cpython-3.11 (build)", "build-debian12 (build)", "node-22-headers (build)"],
            ),
            (&[("requirements.txt", "flask")], "python", &["cpython-3.11", "build-debian12 (build)"]),
            (&[("Staticfile", "")], "staticfile", &["nginx-1.22"]),
            (&[("Procfile", "web: ./server"), ("server", ELF)], "binary", &[]),
            (&[("index.html", "hello"), ("style.css", "")], "staticfile", &["nginx-1.22"]),
            (&[("index.html", ""), ("package.json", "{}"), ("package-lock.json", plain_lock)], "nodejs", &["node-22"]),
        ] {
            let (found, mounted) = lines(&request(&ALL, false), files).unwrap();
            assert_eq!(
                (found.as_str(), mounted.as_slice()),
                (format!("{name}_buildpack").as_str(), &layers.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>()[..])
            );
        }
    }

    #[test]
    fn errors_of_broken_apps_say_what_to_do() {
        for (files, words) in [
            (&[("main.rb", "puts 1"), ("Procfile", "web: ruby main.rb")][..], "main.rb"),
            (&[][..], "empty"),
            (&[("index.html", ""), ("Procfile", "web: ./serve")], "index.html"),
            (&[("go.mod", ""), ("main.go", "")], "There is no Go buildpack here"),
            (&[("package.json", "{")], "package.json cannot be read"),
            (&[("package.json", r#"{"engines":{"node":"8"}}"#)], "22.23.3"),
            (&[("package.json", r#"{"engines":"8"}"#)], "engines"),
            (&[("requirements.txt", ""), ("runtime.txt", "python-2.7")], "3.11.2"),
            (&[("Pipfile", "")], "requirements.txt"),
            (&[("Staticfile", "root: [")], "Staticfile"),
            (&[("requirements.txt", ""), ("Procfile", "nonsense")], "Procfile"),
        ] {
            let text = lines(&request(&ALL, false), files).unwrap_err().to_error().text;
            assert!(text.contains(words), "{words}: {text}");
        }
    }

    #[test]
    fn a_start_command_is_guessed_when_none_is_given() {
        let files = [("requirements.txt", "flask"), ("app.py", "app = Flask(__name__)"), ("package.json", "{}")];
        let source = Listing::of(&files);
        let start = |request: &BuildRequest| plan(request, &source, &mut |_| Ok(None)).unwrap().plan.start;
        let hint = StartHint { command: "gunicorn app:app".into(), missing: Some("gunicorn".into()) };
        let mut asked = request(&["python"], false);
        assert_eq!(start(&asked), Some(hint));
        assert_eq!(start(&request(&["python", "nodejs"], true)), None, "the last one starts the app");
        asked.command = Some("python app.py".into());
        assert_eq!(start(&asked), None);
    }

    #[test]
    fn a_page_is_a_site_only_when_nobody_else_takes_it() {
        let source = Listing::of(&[("index.html", ""), ("app.txt", "")]);
        let mut asked = request(&["staticfile", "foreign"], false);
        let planned = plan(&asked, &source, &mut |_| Ok(Some("mine 1.0".into()))).unwrap().plan;
        assert_eq!(planned.buildpacks[0].name, "foreign_buildpack");
        let planned = plan(&asked, &source, &mut |_| Ok(None)).unwrap().plan;
        assert_eq!((planned.buildpacks[0].name.as_str(), planned.buildpacks[0].index), ("staticfile_buildpack", 0));
        asked.command = Some("./serve".into());
        assert!(plan(&asked, &source, &mut |_| Ok(None)).is_err(), "a command says that something else is meant");
        assert!(plan(&request(&["nodejs"], false), &source, &mut |_| Ok(None)).is_err());
    }

    #[test]
    fn a_directory_that_is_shown_in_part_says_so() {
        let names: Vec<String> = (10..30).map(|number| format!("file-{number}")).collect();
        let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
        let text = lines(&request(&ALL, false), &files).unwrap_err().to_error().text;
        assert!(text.contains("file-21, ….") && !text.contains("file-22"), "{text}");
    }

    #[test]
    fn named_buildpacks_are_all_used_and_not_asked() {
        let files = [("package.json", "{}"), ("requirements.txt", "")];
        let request = request(&["python", "nodejs"], true);
        let planned = plan(&request, &Listing::of(&files), &mut |_| panic!("not asked")).unwrap().plan;
        assert_eq!(planned.buildpacks.iter().map(|b| b.index).collect::<Vec<_>>(), [0, 1]);
        // Python is a run-time layer although node only wants it while building.
        assert!(planned.layers.iter().any(|layer| layer.line == "cpython-3.11" && !layer.build_only));
        assert!(planned.layers.iter().any(|layer| layer.line == "node-22" && !layer.build_only));
    }

    #[test]
    fn foreign_buildpacks_are_asked_in_order() {
        let request = request(&["foreign", "nodejs"], false);
        let source = Listing::of(&[("package.json", "{}")]);
        let planned = plan(&request, &source, &mut |_| Ok(None)).unwrap().plan;
        assert_eq!(planned.buildpacks[0].name, "nodejs_buildpack");
        let planned = plan(&request, &source, &mut |_| Ok(Some("mine 1.0".into()))).unwrap().plan;
        assert_eq!(planned.buildpacks[0].detect_output, "mine 1.0");
        assert!(!planned.layers.is_empty() && planned.layers.iter().all(|layer| layer.build_only));
    }

    #[test]
    fn a_broken_foreign_buildpack_is_passed_over_and_named() {
        let request = request(&["foreign", "nodejs"], false);
        let mut broken = |_| Err(Problem::NotABuildpack { buildpack: "theirs".into(), detail: "no bin/detect".into() });
        let planned = plan(&request, &Listing::of(&[("package.json", "{}")]), &mut broken).unwrap();
        assert_eq!(planned.plan.buildpacks[0].name, "nodejs_buildpack");
        assert!(planned.notes.iter().any(|note| note.contains("theirs")), "{:?}", planned.notes);
        let text = plan(&request, &Listing::of(&[]), &mut broken).unwrap_err().to_error().text;
        assert!(text.contains("theirs") && text.contains("no bin/detect"), "{text}");
    }

    #[test]
    fn unknown_and_absent_buildpacks() {
        assert!(matches!(lines(&request(&["cobol"], false), &[]), Err(Problem::UnknownBuildpack(_))));
        assert_eq!(lines(&request(&[], false), &[]), Err(Problem::NoBuildpacks));
    }
}
