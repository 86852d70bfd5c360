//! What a run says at its end: one table and the gates, for people as Markdown and for programs as JSON. Nothing is measured here.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use super::{Bench, Bound, Case, CaseId, Gate, Measure};

/// The section of a case that the filter leaves out.
pub(super) const LEFT_OUT: &str = "\0left out";

impl Bench {
    pub(super) fn report(&self) {
        print!("{}{}", self.table(), self.verdicts());
        let path = target_dir().join("bench").join(format!("{}.json", self.name));
        match write(&path, &self.json()) {
            Ok(()) => println!("\nwritten to {}", path.display()),
            Err(error) => println!("\nnot written to {}: {error}", path.display()),
        }
    }

    fn table(&self) -> String {
        let bold = |section: &str| format!("**{section}**");
        let widths = self.rows().flat_map(|case| [case.name.chars().count(), case.section.chars().count() + 4]);
        let width = widths.max().unwrap_or(0);
        let mut table = format!("\n| {:width$} |       ns | allocations | to ours | 2 threads |\n", "case");
        let _ = writeln!(table, "|-{}-|---------:|------------:|--------:|----------:|", "-".repeat(width));
        let mut section = "";
        for case in self.rows() {
            if case.section != section {
                section = case.section;
                let _ = writeln!(table, "| {:width$} |          |             |         |           |", bold(section));
            }
            let _ = writeln!(
                table,
                "| {:width$} | {:>8} | {:>11} | {:>7} | {:>9} |",
                case.name,
                cell(case.measured.ns, 1),
                cell(case.measured.allocations, 2),
                cell(self.to_ours(case), 2),
                cell(case.measured.two_threads, 2),
            );
        }
        table
    }

    fn verdicts(&self) -> String {
        let mut text = String::new();
        let gates = self.measured_gates();
        let width = gates.iter().map(|(gate, _)| gate.name.chars().count()).max().unwrap_or(0);
        if !gates.is_empty() {
            let _ = writeln!(text, "\n| {:width$} | wanted         | measured |        |", "gate");
            let _ = writeln!(text, "|-{}-|----------------|---------:|--------|", "-".repeat(width));
        }
        for (gate, measured) in gates {
            let verdict = if gate.bound.holds(measured) { "ok" } else { "MISSED" };
            let _ = writeln!(
                text,
                "| {:width$} | {:14} | {measured:>8.3} | {verdict:6} |",
                gate.name,
                gate.bound.to_string()
            );
        }
        for (number, (name, value)) in self.remarks.iter().enumerate() {
            let _ = writeln!(text, "{}{name}: {value}", if number == 0 { "\n" } else { "" });
        }
        text
    }

    fn json(&self) -> String {
        let row = |case: &Case| {
            format!(
                r#"{{"section": {}, "case": {}, "ours": {}, "ns": {}, "allocations": {}, "ratio_to_ours": {}, "two_threads": {}}}"#,
                string(case.section),
                string(&case.name),
                case.ours,
                number(case.measured.ns),
                number(case.measured.allocations),
                number(self.to_ours(case)),
                number(case.measured.two_threads),
            )
        };
        let gate = |(gate, measured): &(&Gate, f64)| {
            let (name, wanted) = (string(&gate.name), string(&gate.bound.to_string()));
            let ok = gate.bound.holds(*measured);
            format!(r#"{{"name": {name}, "wanted": {wanted}, "measured": {}, "ok": {ok}}}"#, number(Some(*measured)))
        };
        let remark =
            |(name, value): &(String, String)| format!(r#"{{"name": {}, "value": {}}}"#, string(name), string(value));
        let list = |items: Vec<String>| format!("[\n    {}\n  ]", items.join(",\n    "));
        format!(
            "{{\n  \"name\": {},\n  \"rows\": {},\n  \"gates\": {},\n  \"remarks\": {}\n}}\n",
            string(self.name),
            list(self.rows().map(row).collect()),
            list(self.measured_gates().iter().map(gate).collect()),
            list(self.remarks.iter().map(remark).collect()),
        )
    }

    fn rows(&self) -> impl Iterator<Item = &Case> {
        self.cases.iter().filter(|case| case.is_in())
    }

    fn to_ours(&self, case: &Case) -> Option<f64> {
        let ours = self.rows().find(|other| other.ours && other.section == case.section)?;
        Some(case.measured.ns? / ours.measured.ns?)
    }

    fn measured_gates(&self) -> Vec<(&Gate, f64)> {
        self.gates.iter().filter_map(|gate| Some((gate, self.measure(gate.measure)?))).collect()
    }

    fn measure(&self, measure: Measure) -> Option<f64> {
        let measured = |CaseId(index)| self.cases[index].measured;
        match measure {
            Measure::Ratio(case, of) => Some(measured(case).ns? / measured(of).ns?),
            Measure::RatioBeyond(case, of, beyond) => {
                let beyond = measured(beyond).ns?;
                Some((measured(case).ns? - beyond) / (measured(of).ns? - beyond))
            }
            Measure::TwoThreads(case) => measured(case).two_threads,
            Measure::Value(value) => Some(value),
            Measure::AllocationsOf(case) => measured(case).allocations,
            Measure::Allocations => {
                let ours = self.rows().filter(|case| case.ours && !case.may_allocate);
                ours.filter_map(|case| case.measured.allocations).max_by(f64::total_cmp)
            }
        }
    }
}

impl Bound {
    fn holds(self, measured: f64) -> bool {
        match self {
            Self::AtMost(most) => measured <= most,
            Self::AtLeast(least) => measured >= least,
            Self::Between(least, most) => (least..=most).contains(&measured),
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "at most {most:.3}"),
            Self::AtLeast(least) => write!(f, "at least {least:.2}"),
            Self::Between(least, most) => write!(f, "{least:.2} to {most:.2}"),
        }
    }
}

fn cell(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(String::new, |value| format!("{value:.decimals$}"))
}

fn number(value: Option<f64>) -> String {
    value.filter(|value| value.is_finite()).map_or_else(|| "null".to_owned(), |value| format!("{value:.4}"))
}

fn string(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// cargo marks the directory it builds into, and the benchmark lies somewhere below it.
fn target_dir() -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    let marked = exe.ancestors().find(|dir| dir.join("CACHEDIR.TAG").exists());
    let named = || std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    marked.map_or_else(named, Path::to_owned)
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    std::fs::write(path, text)
}
