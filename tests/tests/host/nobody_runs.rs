//! Where no microVM runs, the verbs on running ones say so.

use tests::Ballast;

#[test]
fn the_list_is_empty() {
    let ballast = Ballast::empty();
    let headings = "NAME  ID  STATUS  CPUS  MEMORY  RESIDENT  IMAGE\n";
    ballast.command(&["ps"]).end().exits(0).prints(headings);
    ballast.command(&["ps", "--format", "json"]).end().exits(0).prints("[]\n");
}

#[test]
fn nobody_can_be_asked() {
    let ballast = Ballast::empty();
    ballast.command(&["inspect", "web"]).end().refuses().says("no microVM named 'web' is running; none is");
    ballast.command(&["set", "web", "--memory-ceiling", "auto"]).end().refuses().says("none is");
}

#[test]
fn what_came_of_each_is_one_document() {
    let ballast = Ballast::empty();
    for verb in ["stop", "kill", "rm"] {
        let ended = ballast.command(&[verb, "--format", "json", "web", "ci"]).end().exits(125);
        let outcomes: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
        for (outcome, name) in outcomes.as_array().unwrap().iter().zip(["web", "ci"]) {
            assert_eq!(outcome["name"], name, "{outcomes}");
            assert!(outcome["error"].as_str().unwrap().contains(name), "{outcomes}");
        }
        assert_eq!(outcomes.as_array().unwrap().len(), 2);
    }
}

#[test]
fn a_ceiling_is_a_size() {
    Ballast::empty().command(&["set", "web", "--memory-ceiling", "half"]).end().refuses().says("512m");
}

#[test]
fn a_state_directory_too_deep_for_a_socket() {
    let ballast = Ballast::empty();
    let deep = ballast.path(&"d".repeat(100));
    ballast.run("image", &["true"]).env("BALLAST_STATE", deep).end().refuses().says("BALLAST_STATE");
}
