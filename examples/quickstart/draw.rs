//! The terminal: a line for each second, and a table at the end. Colours and a line that moves are for people only.

use std::{
    env,
    io::{self, IsTerminal, Stdout, Write},
    time::Duration,
};

use buttress::{Trip, circuit_breaker::CircuitState, red::RedSnapshot};

use crate::{
    day::{Day, Health, QUOTA, RUSH, SCRIPT, UNLUCKY, health_at},
    drive::{CALLS_PER_SECOND, CROWD, Diary, Page, patience},
};

/// Of the widest row.
const WIDTH: usize = 79;
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
        for line in [
            "A server has a bad day, and its callers live through it three times at once:",
            "  alone    with a client, and nothing around it",
            "  naive    with a retry around it, three attempts for everybody",
            "  guarded  with a cache, the same retry on a budget, a circuit breaker and a limiter",
            "",
            &format!("{script}."),
            &format!("Even while it is healthy, one call in {UNLUCKY} fails: chance, which a retry hides."),
            &format!(
                "Each second ({second:?}) brings {CALLS_PER_SECOND} calls to each. Callers give up after {patience:?}."
            ),
            "Half of them ask for a page that is the same for everybody, half for their own.",
            &format!(
                "In second {} they are {} of them, and the server allows {QUOTA} calls a second.",
                RUSH + 1,
                CROWD * CALLS_PER_SECOND,
            ),
            "",
            "ok: answered   lost: failed or given up   sent: reached the server, with retries",
            "",
            "           |     alone      |     naive      |             guarded",
            " s server  |   ok lost sent |   ok lost sent | circuit     ok lost refused sent",
        ] {
            self.line(line)?;
        }
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
            (CircuitState::HalfOpen, _) => "half open: the next call is a probe".to_owned(),
            (CircuitState::Closed, _) => "the circuit closes: the server is well".to_owned(),
        };
        // Beside the first two columns: it concerns the last one only.
        let what = self.paint(&format!("> {at:>4.1} s  {what}"), colour(to));
        self.line(&format!("{:>28}{what}", ""))
    }

    /// What the day has cost. `sick` is what the three servers counted.
    pub fn table(&mut self, diary: &Diary, sick: [u32; 3], shared: [u32; 3]) -> io::Result<()> {
        let pages = &diary.pages;
        let calls = pages.iter().map(|page| page.day.all()).max().unwrap_or(0);
        let title = self.paint(&format!("{:<46}", format!("What became of the same {calls} calls")), BOLD);
        let gave_up = format!("given up by the caller after {:?}", patience(self.day));
        let count = |of: fn(&Page) -> u32| pages.each_ref().map(|page| of(page).to_string());
        let sent = pages.each_ref().map(|page| format!("{:.2}", f64::from(page.hits) / f64::from(calls.max(1))));
        let in_vain = pages.each_ref().map(|page| format!("{:.1} s", page.waited_in_vain.as_secs_f64()));
        let rows = [
            ("answered", count(|page| page.day.answered)),
            ("failed: a 5xx, a time-out, no connection", count(|page| page.day.failed)),
            (&gave_up, count(|page| page.day.given_up)),
            ("refused by the circuit or the limiter", count(|page| page.day.refused)),
            ("lost although the server was healthy", count(|page| page.unlucky)),
            ("calls that reached the sick server", sick.map(|n| n.to_string())),
            ("calls for a shared page that reached the server", shared.map(|n| n.to_string())),
            ("calls sent in all, per call made", sent),
            ("most calls sent in a second", count(|page| page.most_sent)),
            ("most callers waiting at the same time", count(|page| page.most_waiting)),
            ("time spent waiting for nothing", in_vain),
        ];
        self.columns(&title, &rows)
    }

    /// Rate, errors and duration as the callers saw them.
    pub fn red(&mut self, figures: &[RedSnapshot; 3]) -> io::Result<()> {
        let second = self.day.time(1.0).as_secs_f64();
        let of = |show: &dyn Fn(&RedSnapshot) -> String| figures.each_ref().map(show);
        let part = |count: u64, red: &RedSnapshot| format!("{:.1} %", 100.0 * count as f64 / red.requests.total as f64);
        let time = |duration: Duration| format!("{:.1} ms", duration.as_secs_f64() * 1e3);
        let title = self.paint(&format!("{:<46}", "Rate, errors, duration, as callers saw them"), BOLD);
        let rows = [
            ("rate: calls a second", of(&|red| format!("{:.1}", red.requests.per_second * second))),
            ("answered", of(&|red| part(red.requests.ok, red))),
            ("errors: failed", of(&|red| part(red.requests.error + red.requests.permanent, red))),
            ("errors: given up", of(&|red| part(red.requests.cancelled, red))),
            ("errors: refused", of(&|red| part(red.requests.rejected, red))),
            ("duration: half of the calls took at most (p50)", of(&|red| time(red.duration.p50))),
            ("duration: 95 of 100 (p95)", of(&|red| time(red.duration.p95))),
            ("duration: 99 of 100 (p99)", of(&|red| time(red.duration.p99))),
        ];
        self.columns(&title, &rows)
    }

    /// One for each of the three ways to call.
    fn columns(&mut self, title: &str, rows: &[(&str, [String; 3])]) -> io::Result<()> {
        self.line("")?;
        self.line(&format!("{title} {:>10} {:>10} {:>10}", "alone", "naive", "guarded"))?;
        self.line(&"-".repeat(WIDTH))?;
        for (what, [alone, naive, guarded]) in rows {
            self.line(&format!("{what:<46} {alone:>10} {naive:>10} {guarded:>10}"))?;
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
        let [alone, naive, guarded] = &diary.pages;
        let ends = |page: &Page| format!("{:>4} {:>4}", page.second.answered, page.second.lost());
        let sent = |page: &Page| {
            let sent = format!("{:>4}", page.sent());
            if page.sent() > CALLS_PER_SECOND * 3 / 2 { self.paint(&sent, RED) } else { sent }
        };
        format!(
            "{:>2} {server} | {} {} | {} {} | {circuit} {} {:>7} {}",
            diary.second + 1,
            ends(alone),
            sent(alone),
            ends(naive),
            sent(naive),
            ends(guarded),
            guarded.second.refused,
            sent(guarded),
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
