//! The terminal: a line for each second, and a table at the end. Colours and a line that moves are for people only.

use std::{
    env,
    io::{self, IsTerminal, Stdout, Write},
};

use buttress::{Trip, circuit_breaker::CircuitState};

use crate::{
    day::{Day, Health, SCRIPT, health_at},
    drive::{CALLS_PER_SECOND, Diary, Page, patience},
};

/// Of the widest row.
const WIDTH: usize = 77;
const GREEN: u8 = 32;
const YELLOW: u8 = 33;
const RED: u8 = 31;
const BOLD: u8 = 1;

/// Where the story is drawn, at most 80 columns wide.
pub struct Screen {
    out: Stdout,
    day: Day,
    /// Whether a person watches, and has not asked for plain text.
    lively: bool,
}

impl Screen {
    /// Standard output.
    pub fn new(day: Day) -> Self {
        let out = io::stdout();
        let plain = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { lively: out.is_terminal() && !plain, out, day }
    }

    /// What is going to happen, and what the columns mean.
    pub fn heading(&mut self) -> io::Result<()> {
        let script = SCRIPT.map(|(health, seconds)| format!("{} {seconds} s", health.as_str())).join(", ");
        let (second, patience) = (self.day.time(1.0), patience(self.day));
        self.line("A server has a bad day:")?;
        self.line(&format!("{script}."))?;
        self.line(&format!(
            "Each second of it ({second:?}) brings {CALLS_PER_SECOND} calls. A caller gives up after {patience:?}."
        ))?;
        self.line("")?;
        self.line("    the     |        with a circuit breaker        |     the same without")?;
        self.line(" s  server  | circuit    answered  failed  refused | answered  failed  waiting")?;
        self.line(&"-".repeat(WIDTH))
    }

    /// The present second, if somebody watches.
    pub fn second_so_far(&mut self, diary: &Diary, state: CircuitState) -> io::Result<()> {
        if self.lively {
            let row = self.row(diary, state);
            write!(self.out, "\r\x1b[2K{row}")?;
            self.out.flush()?;
        }
        Ok(())
    }

    /// A second that will not change any more.
    pub fn second_is_over(&mut self, diary: &Diary, state: CircuitState) -> io::Result<()> {
        let row = self.row(diary, state);
        self.line(&row)
    }

    /// The circuit has changed its state.
    pub fn transition(&mut self, at: f64, to: CircuitState, trip: Option<Trip>) -> io::Result<()> {
        let what = match (to, trip) {
            (CircuitState::Open, Some(trip)) => format!("the circuit opens: {trip}"),
            (CircuitState::Open, None) => "the circuit opens".to_owned(),
            (CircuitState::HalfOpen, _) => "the circuit is half open: the next call is a probe".to_owned(),
            (CircuitState::Closed, _) => "the circuit closes: the server is well again".to_owned(),
        };
        let what = self.paint(&what, colour(to));
        self.line(&format!("            > {at:>4.1} s  {what}"))
    }

    /// What the day has cost. `sick` is what the two servers counted, first the one without a circuit breaker.
    pub fn table(&mut self, diary: &Diary, sick: [u32; 2]) -> io::Result<()> {
        let (without, with) = (&diary.without, &diary.with);
        let calls = without.day.all().max(with.day.all());
        let title = self.paint(&format!("{:<49}", format!("What became of the same {calls} calls")), BOLD);
        let gave_up = format!("given up by the caller after {:?}", patience(self.day));
        let count = |of: fn(&Page) -> u32| [of(without), of(with)].map(|n| n.to_string());
        let time = |of: fn(&Page) -> f64| [of(without), of(with)].map(|seconds| format!("{seconds:.1} s"));
        let rows = [
            ("answered", count(|page| page.day.answered)),
            ("failed: a 5xx, or no connection", count(|page| page.day.failed)),
            (&gave_up, count(|page| page.day.given_up)),
            ("refused at once by the open circuit", count(|page| page.day.refused)),
            ("calls that hit the server while it was sick", sick.map(|n| n.to_string())),
            ("most callers waiting at the same time", count(|page| page.most_waiting)),
            ("time all callers spent waiting", time(|page| page.waited.as_secs_f64())),
            ("time they spent waiting for nothing", time(|page| page.waited_in_vain.as_secs_f64())),
        ];
        self.line("")?;
        self.line(&format!("{title} {:>12} {:>14}", "without", "with breaker"))?;
        self.line(&"-".repeat(WIDTH))?;
        for (what, [without, with]) in rows {
            self.line(&format!("{what:<49} {without:>12} {with:>14}"))?;
        }
        self.line(&"-".repeat(WIDTH))
    }

    /// A whole line, in place of one that is still growing.
    pub fn line(&mut self, line: &str) -> io::Result<()> {
        let erase = if self.lively { "\r\x1b[2K" } else { "" };
        writeln!(self.out, "{erase}{line}")
    }

    fn row(&self, diary: &Diary, state: CircuitState) -> String {
        let health = health_at(f64::from(diary.second)).unwrap_or(Health::Healthy);
        let server =
            self.paint(&format!("{:<7}", health.as_str()), if health == Health::Healthy { GREEN } else { RED });
        let circuit = self.paint(&format!("{:<9}", state.as_str()), colour(state));
        let (with, without) = (&diary.with.second, &diary.without);
        format!(
            "{:>2}  {server} | {circuit} {:>9} {:>7} {:>8} | {:>8} {:>7} {:>8}",
            diary.second + 1,
            with.answered,
            with.lost(),
            with.refused,
            without.second.answered,
            without.second.lost(),
            without.waiting,
        )
    }

    fn paint(&self, text: &str, style: u8) -> String {
        if self.lively { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

const fn colour(state: CircuitState) -> u8 {
    match state {
        CircuitState::Closed => GREEN,
        CircuitState::Open => RED,
        CircuitState::HalfOpen => YELLOW,
    }
}
