//! Tests of this program once more, on a kernel that has none of the calls that Linux 4.18 lacks: a filter answers for
//! them, to the daemon, the launcher, the shims and the containers.

use std::process::Command;

use coracle_tests::on_an_older_kernel;

use crate::engine::ours_alone;

#[test]
fn people_see_no_difference() {
    if ours_alone("a kernel without newer calls is made up for our programs") {
        return;
    }
    const TESTS: [&str; 9] = [
        "containers::run_gives_output_exit_code_and_input",
        "containers::what_cannot_start_says_why",
        "containers::options_reach_the_container",
        "containers::a_container_lives_and_dies",
        "containers::files_go_in_and_out_and_changes_show",
        "images::commits_saves_and_loads_keep_content",
        "volumes::a_volume_outlives_its_containers_and_begins_with_the_images_content",
        "volumes::anonymous_volumes_go_with_their_container_and_binds_are_the_hosts",
        "build::files_go_where_the_rules_say",
    ];
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(TESTS).args(["--exact", "--test-threads", "2"]);
    let output = on_an_older_kernel(&mut command).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains(&format!("test result: ok. {} passed", TESTS.len())), "{text}");
}
