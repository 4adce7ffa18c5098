//! What the store holds: names, which image is meant, removal.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use super::fixture::{Bench, Tar, docker_archive, docker25_archive, is_root, read, told};
use crate::image::error::Error;
use crate::image::progress::Silent;
use crate::image::reference::ImageRef;
use crate::image::store::{Origin, Pruned, Store};

fn tar(text: &str) -> Vec<u8> {
    Tar::new().file("f", text).end()
}

#[test]
fn names_are_given_moved_and_removed() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let (one, two) = (bench.write("1.tar", &tar("one")), bench.write("2.tar", &tar("two")));
    let named =
        |path: &Path, name: &str| bench.store.import(Origin::Path(path), Some(name), &Silent).unwrap();
    let first = named(&one, "app");
    named(&one, "registry.example:5000/team/app:1");
    let second = named(&two, "other");
    let list = bench.store.list().unwrap();
    let names: Vec<_> = list.iter().map(|line| line.name.clone().unwrap()).collect();
    assert_eq!(names, ["app:latest", "other:latest", "registry.example:5000/team/app:1"]);
    assert_eq!((list[0].id.as_str(), list[0].layers, list[0].size_bytes), (first.id.as_str(), 1, 2 << 20));
    // An id with two names cannot be meant by its id.
    assert!(matches!(bench.store.remove(&first.id[..20]), Err(Error::SeveralNames { .. })));
    let removed = bench.store.remove("app").unwrap();
    assert_eq!((removed.names, removed.image), (vec!["app:latest".to_owned()], None));
    // The name moves; the image it had keeps the other one.
    named(&two, "registry.example:5000/team/app:1");
    assert_eq!(bench.store.list().unwrap().iter().filter(|line| line.id == first.id).count(), 1);
    let removed = bench.store.remove(&first.id).unwrap();
    assert_eq!((removed.image, removed.freed_bytes), (Some(first.id), Some(2 << 20)));
    assert!(matches!(bench.store.remove("app"), Err(Error::NoSuchImage(_))));
    bench.store.remove("other").unwrap();
    bench.store.remove("registry.example:5000/team/app:1").unwrap();
    for directory in ["layers", "images", "names", "memo"] {
        assert_eq!(bench.stored(directory), [""; 0], "{directory}");
    }
    assert_eq!(read(&second.layers[0].file)[Path::new("f")].text(), "two", "open layers stay readable");
    assert!(bench.store.import(Origin::Path(&one), Some("No Name"), &Silent).is_err());
}

#[test]
fn pruning_leaves_what_has_a_name() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let (one, two) = (bench.write("1.tar", &tar("one")), bench.write("2.tar", &tar("two")));
    let named = bench.store.import(Origin::Path(&one), Some("app"), &Silent).unwrap();
    let unnamed = bench.import(&two).unwrap();
    let pruned = bench.store.prune().unwrap();
    assert_eq!(pruned.images, [&*unnamed.id]);
    assert_eq!(pruned.freed_bytes, Some(2 << 20));
    let listed = bench.store.list().unwrap();
    assert_eq!(listed.iter().map(|image| &image.id).collect::<Vec<_>>(), [&named.id]);
    assert_eq!(bench.stored("layers").len(), 1);
    assert_eq!(bench.store.prune().unwrap(), Pruned { images: vec![], freed_bytes: Some(0) });
    assert_eq!(bench.import(&two).unwrap().id, unnamed.id);
}

#[test]
fn pruning_gets_what_interrupted_imports_left_unless_one_runs() {
    let bench = Bench::new();
    let layer = bench.path("data/layers").join(format!("{}.erofs", "ab".repeat(32)));
    fs::write(&layer, [7; 100]).unwrap();
    let import = bench.store.lease().unwrap();
    assert_eq!(bench.store.prune().unwrap(), Pruned { images: vec![], freed_bytes: None });
    assert!(layer.exists(), "the import may be about to use it");
    drop(import);
    assert_eq!(bench.store.prune().unwrap(), Pruned { images: vec![], freed_bytes: Some(100) });
    assert!(!layer.exists());
}

#[test]
fn what_is_removed_before_it_is_named_is_imported_again() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let path = bench.write("x.tar", &tar("one"));
    // As another process that removes what has no name yet.
    let catalogue = bench.store.lock_catalogue().unwrap();
    let root = bench.path("data");
    let image = std::thread::scope(|scope| {
        let import = scope.spawn(|| {
            Store::open(&root, 8).unwrap().import(Origin::Path(&path), Some("app"), &Silent).unwrap()
        });
        while bench.stored("memo").is_empty() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        for directory in ["images", "memo", "layers"] {
            fs::remove_file(bench.path("data").join(directory).join(&bench.stored(directory)[0])).unwrap();
        }
        drop(catalogue);
        import.join().unwrap()
    });
    assert_eq!(read(&image.layers[0].file)[Path::new("f")].text(), "one");
    let list = bench.store.list().unwrap();
    assert_eq!((list[0].name.as_deref(), list[0].id.as_str()), (Some("app:latest"), image.id.as_str()));
}

#[test]
fn names_and_removals_at_once_leave_no_name_without_an_image() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let path = bench.write("x.tar", &tar("one"));
    let root = bench.path("data");
    std::thread::scope(|scope| {
        let importer = scope.spawn(|| {
            let store = Store::open(&root, 8).unwrap();
            for _ in 0..20 {
                let image = store.import(Origin::Path(&path), Some("app"), &Silent);
                assert!(matches!(image, Ok(_) | Err(Error::Removed(_))), "{image:?}");
            }
        });
        while !importer.is_finished() {
            match bench.store.remove("app") {
                Ok(_) | Err(Error::NoSuchImage(_)) => {}
                Err(error) => panic!("{}", told(&error)),
            }
            bench.store.prune().unwrap();
        }
    });
    let (names, images) = (bench.store.names().unwrap(), bench.stored("images"));
    assert!(names.iter().all(|(_, id)| images.contains(&format!("{}.json", id.hex()))));
}

#[test]
fn shared_layers_stay_with_whoever_uses_them() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let base = tar("base");
    let import = |layers: &[Vec<u8>], name: &str| {
        let path = bench.write(name, &docker_archive(layers, &[name]));
        bench.import(&path).unwrap()
    };
    import(&[base.clone(), Tar::new().file("one", "1").end()], "one");
    let two = import(&[base.clone(), Tar::new().file("two", "2").end()], "two");
    assert_eq!(bench.stored("layers").len(), 3);
    let removed = bench.store.remove("one").unwrap();
    assert_eq!(removed.freed_bytes, Some(2 << 20));
    assert_eq!(bench.stored("layers").len(), 2);
    assert!(two.layers.iter().all(|layer| layer.path.exists()));
}

#[test]
fn a_name_comes_before_a_file_and_a_path_is_only_a_path() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let path = bench.write("1.tar", &tar("imported"));
    let imported = bench.store.import(Origin::Path(&path), Some("app"), &Silent).unwrap();
    let resolve = |text: &OsStr| bench.store.resolve(&ImageRef::parse(text), &bench.log);
    assert_eq!(resolve(OsStr::new("app")).unwrap().id, imported.id);
    assert_eq!(resolve(OsStr::new(&imported.id[7..19])).unwrap().id, imported.id);
    assert_eq!(resolve(path.as_os_str()).unwrap().id, imported.id);
    assert!(matches!(resolve(OsStr::new("./app")), Err(Error::Open { .. })));
    let error = told(&resolve(OsStr::new("debian")).unwrap_err());
    assert!(error.contains("skopeo"), "{error}");
    assert_eq!(bench.store.list().unwrap().len(), 1, "looking up names nothing");
}

#[test]
fn a_name_of_dockers_registry_is_found_in_every_spelling() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let archive = docker25_archive(&[tar("one")], &["app:1", "app:latest"]);
    let id = bench.import_bytes(&archive).unwrap().id;
    let names = |bench: &Bench| {
        let list = bench.store.list().unwrap();
        list.into_iter().map(|line| line.name.unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(names(&bench), ["app:1", "app:latest"]);
    for spelling in ["app", "library/app", "docker.io/library/app:latest"] {
        let reference = ImageRef::parse(OsStr::new(spelling));
        assert_eq!(bench.store.resolve(&reference, &Silent).unwrap().id, id, "{spelling}");
    }
    // As a store has them that was written when names were kept as archives spell them.
    let old = |name: &str| bench.path("data/names").join(format!("docker.io%2Flibrary%2F{name}.json"));
    fs::rename(bench.path("data/names/app:latest.json"), old("app:latest")).unwrap();
    fs::copy(bench.path("data/names/app:1.json"), old("app:1")).unwrap();
    let store = Store::open(&bench.path("data"), 8).unwrap();
    assert_eq!(names(&bench), ["app:1", "app:latest"]);
    assert_eq!(store.remove("docker.io/library/app").unwrap().names, ["app:latest"]);
    assert_eq!(store.remove("app:1").unwrap().image, Some(id));
    assert_eq!(bench.stored("names"), [""; 0]);
    // Both spellings, of two images: the one that loses its name stays until it is pruned.
    let [one, two] = ["one", "two"].map(|text| {
        let path = bench.write(&format!("{text}.tar"), &tar(text));
        bench.store.import(Origin::Path(&path), Some(text), &Silent).unwrap().id
    });
    fs::rename(bench.path("data/names/one:latest.json"), old("two:latest")).unwrap();
    let store = Store::open(&bench.path("data"), 8).unwrap();
    assert_eq!(bench.stored("names"), ["two:latest.json"]);
    assert_eq!(store.resolve(&ImageRef::parse(OsStr::new("two")), &Silent).unwrap().id, two);
    assert_eq!(store.prune().unwrap().images, [one]);
}

#[test]
fn of_several_images_the_name_chooses() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let layers = [tar("one"), tar("two")];
    let mut files = Tar::new();
    let mut items = Vec::new();
    for (at, layer) in layers.iter().enumerate() {
        let config = super::fixture::config(std::slice::from_ref(layer));
        let put = |tar: Tar, name: &str, bytes: &[u8]| {
            tar.raw(Tar::header(name.as_bytes(), tar::EntryType::Regular, bytes.len() as u64), bytes)
        };
        files = put(put(files, &format!("c{at}"), &config), &format!("l{at}"), layer);
        items.push(serde_json::json!({
            "Config": format!("c{at}"), "RepoTags": [format!("app:{at}")], "Layers": [format!("l{at}")]
        }));
    }
    let manifest = serde_json::Value::from(items).to_string();
    // The manifest leads, so that this counts as an archive of images.
    let bytes = [Tar::new().file("manifest.json", &manifest).0, files.end()].concat();
    let path = bench.write("both.tar", &bytes);
    let error = told(&bench.import(&path).unwrap_err());
    assert!(error.contains("app:0, app:1") && error.contains("--name"), "{error}");
    for (at, text) in [(1, "two"), (0, "one"), (1, "two")] {
        let name = format!("app:{at}");
        let image = bench.store.import(Origin::Path(&path), Some(&name), &bench.log).unwrap();
        assert_eq!(read(&image.layers[0].file)[Path::new("f")].text(), text);
    }
    assert!(bench.import(&path).is_err(), "one choice is not the next one's");
}
