//! Command lines as users write them.

use super::*;

fn client(arguments: &[&str]) -> Result<ClientArgs, clap::Error> {
    let all = ["demo", "client"].iter().chain(arguments).map(OsString::from);
    match try_parse(all)?.command {
        Command::Client(args) => Ok(args),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_definitions_are_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn defaults_of_the_scene() {
    let args = client(&[]).unwrap();
    assert_eq!(args.target, "http://localhost:8080/hello");
    assert_eq!((args.count, args.concurrency, args.retries), (20, 3, 3));
    assert_eq!(
        (args.interval, args.timeout),
        (Duration::from_millis(300), Duration::from_secs(3))
    );
}

#[test]
fn one_dash_and_two_dashes_and_equals_signs_mean_the_same() {
    for arguments in [
        ["-target", "http://x/hello", "-count", "7"].as_slice(),
        &["--target", "http://x/hello", "--count", "7"],
        &["-target=http://x/hello", "--count=7"],
    ] {
        let args = client(arguments).unwrap();
        assert_eq!(
            (args.target.as_str(), args.count),
            ("http://x/hello", 7),
            "{arguments:?}"
        );
    }
}

#[test]
fn what_is_wrong_is_refused() {
    assert!(client(&["-concurrency", "0"]).is_err());
    assert!(client(&["-interval", "300"]).is_err());
    assert!(client(&["-interval", "-3s"]).is_err());
    assert!(client(&["-tarket", "x"]).is_err());
}
