//! Signals to `lowmem on` alone reach the program, and the report comes; what the program leaves behind ends with it.

use std::fs::File;
use std::io::Read;
use std::process::{Command, Output, Stdio};

use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process};

use crate::command::{Place, executable};
use crate::processes::{MARK, left};

/// `lowmem on` with a shell's program that says its number into the pipe `begun` once it is ready; it is sent `signal` then.
fn signalled(place: &Place, program: &str, mark: &str, signal: Signal) -> Output {
    assert!(Command::new("mkfifo").arg(place.path("begun")).status().expect("mkfifo").success());
    let mut lowmem = Command::new(executable("lowmem"));
    lowmem.args(["on", "rtx-4090", "--", "sh", "-c", program]).env(MARK, mark).current_dir(place.path(""));
    let lowmem = lowmem.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("lowmem");
    let mut number = String::new();
    // Opening waits for the program, reading for its word.
    File::open(place.path("begun")).expect("the pipe").read_to_string(&mut number).expect("its number");
    kill_process(Pid::from_child(&lowmem), signal).expect("sent");
    lowmem.wait_with_output().expect("lowmem ends")
}

#[rstest]
#[case("INT", Signal::INT)]
#[case("TERM", Signal::TERM)]
#[case("QUIT", Signal::QUIT)]
#[case("HUP", Signal::HUP)]
#[case("USR1", Signal::USR1)]
#[case("USR2", Signal::USR2)]
fn a_signal_is_passed_on_once_and_the_report_comes(#[case] name: &str, #[case] signal: Signal) {
    let place = Place::new();
    // The pipe from which it reads never ends, so the signal is what it waits for; a second one would end it.
    let program = format!(
        "trap 'echo caught {name}; trap - {name}; kill $waiting; exit 5' {name}\nsleep 300 & waiting=$!\necho $$ > begun\nwait $waiting; wait $waiting"
    );
    let mark = format!("on-{name}");
    let output = signalled(&place, &program, &mark, signal);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        (String::from_utf8_lossy(&output.stdout).as_ref(), output.status.code()),
        (format!("caught {name}\n").as_str(), Some(5)),
        "{said}"
    );
    assert!(said.contains("no process of the program used the GPU"), "{said}");
    assert_eq!(left(&mark), [""; 0]);
}

#[test]
fn a_program_that_a_signal_ends_has_its_report_too() {
    let place = Place::new();
    let output = signalled(&place, "echo $$ > begun; exec sleep 300", "on-ended", Signal::USR1);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(128 + 10), "{said}");
    assert!(said.contains("signal 10 ended the program"), "{said}");
}

#[test]
fn what_a_program_leaves_behind_ends_with_lowmem() {
    let place = Place::new();
    let program = "setsid sleep 300 & setsid sleep 300 > /dev/null 2>&1 < /dev/null & echo $$ > begun; sleep 300";
    for signal in [Signal::KILL, Signal::TERM] {
        let mark = format!("on-left-{}", signal.as_raw());
        signalled(&place, program, &mark, signal);
        assert_eq!(left(&mark), [""; 0]);
        std::fs::remove_file(place.path("begun")).expect("removed");
    }
}
