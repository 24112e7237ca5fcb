//! `lowmem monitor`: the GPUs, sample by sample, until enough were taken or somebody ends it.

use std::io::{IsTerminal, stdout};
use std::sync::{Arc, Mutex, PoisonError};

use crate::cli::MonitorArguments;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::interrupt::Interrupt;
use crate::monitor::{Alarms, CsvFile, KIND, Monitor, Sample, exposition, lines, screen};
use crate::print;
use crate::web::{self, Address};

/// To the terminal: the cursor goes home, or the whole screen is cleared before.
const HOME: &str = "\x1b[H";
const CLEAR: &str = "\x1b[2J";
/// To the terminal: what is left of the line, and of the screen, is cleared.
const REST_OF_LINE: &str = "\x1b[K\n";
const REST: &str = "\x1b[J";

/// Watches the GPUs.
pub(crate) fn run(arguments: &MonitorArguments) -> Result<ExitCode, Error> {
    let mut monitor = Monitor::begin()?;
    let mut csv = arguments.csv.as_deref().map(CsvFile::open).transpose()?;
    let mut address = arguments.prometheus.map(Address::of_figures).transpose()?;
    let mut alarms = arguments.alarm.map(Alarms::at);
    let interrupt = Interrupt::listen()?;
    let newest = Arc::new(Mutex::new(String::new()));
    let draws = stdout().is_terminal() && !arguments.json;
    for number in 1.. {
        let mut sample = monitor.sample();
        let said = alarms.as_mut().map(|alarms| alarms.see(&mut sample)).unwrap_or_default();
        if let Some(csv) = &mut csv {
            csv.append(&sample)?;
        }
        *newest.lock().unwrap_or_else(PoisonError::into_inner) = exposition(&sample);
        // From the first sample on, so that nobody gets none.
        if let Some(address) = address.take() {
            serve(address, &newest)?;
        }
        show(&sample, arguments.json, draws.then_some(number == 1))?;
        said.iter().for_each(|line| tell!("{line}"));
        let is_last = arguments.count == Some(number);
        if is_last || interrupt.wait_for(arguments.interval) {
            let was_raised = alarms.is_some_and(|alarms| alarms.was_raised());
            return Ok(match () {
                () if was_raised => ExitCode::Alarm,
                // Without a number that is how it ends.
                () if is_last || arguments.count.is_none() => ExitCode::Done,
                () => ExitCode::Interrupted,
            });
        }
    }
    Ok(ExitCode::Done)
}

/// Prints a sample; on a terminal over the one before, or where it is the first on a clear screen.
fn show(sample: &Sample, json: bool, on_terminal: Option<bool>) -> Result<(), Error> {
    if json {
        say!("{}", serde_json::to_string(sample).map_err(|error| Error::Fault(format!("the sample is no JSON: {error}")))?);
    } else if let Some(is_first) = on_terminal {
        let begin = if is_first { CLEAR } else { "" };
        let text = format!("{begin}{HOME}{}{REST}", screen(sample).replace('\n', REST_OF_LINE));
        print::exact(&mut stdout(), text.as_bytes());
    } else {
        lines(sample).iter().for_each(|line| say!("{line}"));
    }
    Ok(())
}

/// Lets Prometheus fetch what is newest.
fn serve(address: Address, newest: &Arc<Mutex<String>>) -> Result<(), Error> {
    tell!("For Prometheus: {}", address.shown("metrics"));
    if address.is_for_others() {
        tell!("Whoever reaches this machine can read it: which GPUs it has, their use, and the names of programs on them.");
    }
    let newest = Arc::clone(newest);
    web::start(address, move |request, stream| match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/metrics") => {
            let text = newest.lock().unwrap_or_else(PoisonError::into_inner).clone();
            web::send(stream, "200 OK", KIND, &text)
        }
        (_, "/metrics") => web::say(stream, "405 Method Not Allowed", "That is not done here."),
        _ => web::say(stream, "404 Not Found", "The figures are at /metrics."),
    })
}
