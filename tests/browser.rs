//! The quickstart's live page in a real browser: `scripts/test --browser`, which builds the example and installs what is missing.
//!
//! It compares what the page shows, to the last point of its charts, with the figures it was given. Screenshots are left in `target/browser`.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use axum::{body::Bytes, http::Request};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};
use tokio::time::Instant;

const FLAGS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--lang=en",
];
const PATIENCE: Duration = Duration::from_secs(90);
const SIDES: [&str; 3] = ["alone", "naive", "guarded"];
const ARROW_LEFT: &str = "\u{E012}";
const TAB: &str = "\u{E004}";

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// Starts it, and waits for a line with this in it. Answers with what follows.
    fn start(command: &mut Command, announces: &str) -> (Self, String) {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut running = Self(child.unwrap_or_else(|error| panic!("{command:?}: {error}")));
        let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
        let found = lines.by_ref().find_map(|line| Some(line.ok()?.split_once(announces)?.1.to_owned()));
        let found = found.unwrap_or_else(|| panic!("{command:?} did not say {announces:?}"));
        // Who is not read stands still.
        std::thread::spawn(move || lines.for_each(drop));
        (running, found)
    }
}

async fn http(method: &str, url: &str, body: Option<&Value>) -> Value {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
    let request = Request::builder().method(method).uri(url).header("content-type", "application/json");
    let response = client.request(request.body(Full::new(body)).unwrap()).await.unwrap();
    let status = response.status();
    let text = response.into_body().collect().await.unwrap().to_bytes();
    assert!(status.is_success(), "{method} {url}: {status}: {}", String::from_utf8_lossy(&text));
    serde_json::from_slice(&text).unwrap()
}

/// A page in a browser, by the protocol of WebDriver.
struct Page {
    _driver: Running,
    session: String,
}

impl Page {
    async fn new() -> Self {
        let (driver, rest) =
            Running::start(Command::new("chromedriver").arg("--port=0"), "was started successfully on port ");
        let port: u16 = rest.trim_end_matches('.').parse().unwrap();
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": FLAGS },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let opened = http("POST", &format!("http://127.0.0.1:{port}/session"), Some(&wanted)).await;
        let id = opened["value"]["sessionId"].as_str().unwrap();
        Self { _driver: driver, session: format!("http://127.0.0.1:{port}/session/{id}") }
    }

    async fn tell(&self, what: &str, body: &Value) -> Value {
        http("POST", &format!("{}/{what}", self.session), Some(body)).await["value"].take()
    }

    /// What a script returns.
    async fn ask(&self, script: &str) -> Value {
        self.tell("execute/sync", &json!({ "script": script, "args": [] })).await
    }

    async fn text(&self, selector: &str) -> String {
        let script = format!("return document.querySelector({}).textContent", json!(selector));
        self.ask(&script).await.as_str().unwrap().to_owned()
    }

    async fn until(&self, condition: &str) {
        let began = Instant::now();
        while self.ask(&format!("return {condition}")).await != true {
            assert!(began.elapsed() < PATIENCE, "in vain: {condition}; the page says {:?}", self.text("main").await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn press(&self, key: &str) {
        let keys = json!([{ "type": "keyDown", "value": key }, { "type": "keyUp", "value": key }]);
        self.tell("actions", &json!({ "actions": [{ "type": "key", "id": "keys", "actions": keys }] })).await;
    }

    async fn devtools(&self, command: &str, params: Value) -> Value {
        self.tell("goog/cdp/execute", &json!({ "cmd": command, "params": params })).await
    }

    async fn screenshot(&self, name: &str) {
        let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/browser");
        fs::create_dir_all(&directory).unwrap();
        let shot = self.devtools("Page.captureScreenshot", json!({ "captureBeyondViewport": true })).await;
        fs::write(directory.join(name), base64(shot["data"].as_str().unwrap())).unwrap();
    }

    /// A number that the page shows of the whole day.
    async fn figure(&self, key: &str) -> f64 {
        let text = self.text(&format!(":not(#moment) > * > [data-figure='{key}']")).await;
        let number = text.trim_end_matches(['%', 'm', 's', ' ']);
        number.parse().unwrap_or_else(|_| panic!("{key} is {text:?}"))
    }

    /// The values of a line, read off its chart's own axes.
    async fn line(&self, key: &str) -> Vec<f64> {
        let script = format!(
            "const line = document.querySelector('[data-series=\"{key}\"]');
             const ticks = [...line.ownerSVGElement.querySelectorAll('[data-tick]')];
             const [low, high] = [ticks[0], ticks.at(-1)].map(t => [Number(t.dataset.tick), Number(t.getAttribute('y1'))]);
             return [...line.points].map(p => low[0] + (p.y - low[1]) * (high[0] - low[0]) / (high[1] - low[1]));"
        );
        serde_json::from_value(self.ask(&script).await).unwrap()
    }

    /// The value of a mark, read off its chart's own logarithmic axis.
    async fn mark(&self, key: &str) -> f64 {
        let script = format!(
            "const mark = document.querySelector('[data-mark=\"{key}\"]'), box = mark.getBBox();
             const ticks = [...mark.ownerSVGElement.querySelectorAll('[data-tick]')];
             const [low, high] = [ticks[0], ticks.at(-1)].map(t => [Math.log10(t.dataset.tick), Number(t.getAttribute('x1'))]);
             return 10 ** (low[0] + (box.x + box.width / 2 - low[1]) * (high[0] - low[0]) / (high[1] - low[1]));"
        );
        self.ask(&script).await.as_f64().unwrap()
    }

    async fn close(self) {
        http("DELETE", &self.session, None).await;
    }
}

fn base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.bytes().filter_map(|byte| DIGITS.iter().position(|digit| *digit == byte));
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for digit in digits {
        bits = (bits << 6) | digit as u32;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    bytes
}

/// Shown rounded, or read off a chart.
#[track_caller]
fn assert_near(shown: f64, given: &Value, within: f64, what: &str) {
    let given = given.as_f64().unwrap_or_else(|| panic!("{what} is no number: {given}"));
    assert!((shown - given).abs() <= within, "{what}: shown {shown}, given {given}");
}

fn sum(side: &Value, keys: &[&str]) -> u64 {
    let seconds = side["seconds"].as_array().unwrap();
    seconds.iter().flat_map(|second| keys.iter().map(|key| second[key].as_u64().unwrap())).sum()
}

#[tokio::test]
async fn the_live_page_shows_the_figures_it_is_given() {
    let example = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("examples/quickstart");
    let page = Page::new().await;
    let (quickstart, url) = Running::start(Command::new(example).arg("--serve"), "Watch it at ");
    page.tell("url", &json!({ "url": url })).await;

    // It lives: some second, and then a later one.
    let second = "Number(document.getElementById('state').textContent.match(/^Second ([0-9]+) of 21/)?.[1])";
    page.until(&format!("{second} > 0")).await;
    page.until(&format!("{second} > {} + 5", page.ask(&format!("return {second}")).await)).await;
    page.screenshot("meanwhile.png").await;
    page.until("document.documentElement.dataset.state === 'over'").await;

    let given = http("GET", &format!("{url}figures.json"), None).await;
    the_figures_add_up(&given);
    the_figures_are_shown(&page, &given).await;
    the_keyboard_chooses_a_second(&page, &given).await;
    it_fits_and_is_readable(&page).await;

    let foreign = format!(
        "return performance.getEntriesByType('resource').map(r => r.name).filter(n => !n.startsWith({}) && !n.startsWith('data:'))",
        json!(url)
    );
    assert_eq!(page.ask(&foreign).await, json!([]), "nothing from elsewhere");
    assert_eq!(page.tell("se/log", &json!({ "type": "browser" })).await, json!([]), "nothing to complain of");

    // It does not take its last figures for present ones.
    drop(quickstart);
    page.until("document.getElementById('trouble').textContent.includes('last figures')").await;
    page.close().await;
}

fn the_figures_add_up(given: &Value) {
    assert_eq!(given["day"]["length"], 21);
    for (side, name) in given["sides"].as_array().unwrap().iter().zip(SIDES) {
        assert_eq!(side["name"], name);
        let requests = |key: &str| side["requests"][key].as_u64().unwrap();
        assert_eq!(side["seconds"].as_array().unwrap().len(), 21);
        assert_eq!(sum(side, &["ok"]), requests("ok"));
        assert_eq!(sum(side, &["lost", "refused"]), requests("error") + requests("cancelled") + requests("rejected"));
        assert_eq!(sum(side, &["ok", "lost", "refused"]), requests("total"));
        assert!(requests("total") > 300 && requests("ok") > 100 && requests("in_flight") == 0, "{side}");
    }
}

async fn the_figures_are_shown(page: &Page, given: &Value) {
    for (index, name) in SIDES.into_iter().enumerate() {
        let side = &given["sides"][index];
        let total = side["requests"]["total"].as_f64().unwrap();
        assert_near(page.figure(&format!("{name}.rate")).await, &json!(total / 21.0), 0.06, name);
        for key in ["ok", "error", "cancelled", "rejected"] {
            let percent = json!(100.0 * side["requests"][key].as_f64().unwrap() / total);
            assert_near(page.figure(&format!("{name}.{key}")).await, &percent, 0.06, &format!("{name}.{key}"));
        }
        for key in ["p50", "p95", "p99"] {
            let millis = &side["duration"][format!("{key}_ms")];
            let what = format!("{name}.{key}");
            assert_near(page.figure(&what).await, millis, 0.51, &what);
            assert_near(page.mark(&what).await, millis, millis.as_f64().unwrap() * 0.01, &what);
        }
        for key in ["ok", "lost", "sent"] {
            the_line_is(page, side, name, key).await;
        }
    }
    the_line_is(page, &given["sides"][2], "guarded", "refused").await;
    let cache = &given["cache"];
    assert_near(
        page.figure("cache.hit_rate").await,
        &json!(100.0 * cache["hit_rate"].as_f64().unwrap()),
        0.51,
        "hit rate",
    );
    for key in ["calls", "calls_saved", "stale"] {
        assert_near(page.figure(&format!("cache.{key}")).await, &cache[key], 0.0, key);
        assert!(cache[key].as_u64().unwrap() > 0, "{key}");
    }
    assert_eq!(page.text("[data-figure='circuit.state']").await, "closed");
    let limit = "const limit = document.querySelector('line.limit'), ticks = [...limit.ownerSVGElement.querySelectorAll('[data-tick]')];
        const [low, high] = [ticks[0], ticks.at(-1)].map(t => [Number(t.dataset.tick), Number(t.getAttribute('y1'))]);
        return low[0] + (limit.getAttribute('y1') - low[1]) * (high[0] - low[0]) / (high[1] - low[1]);";
    assert_near(page.ask(limit).await.as_f64().unwrap(), &given["day"]["quota"], 0.1, "the limit");
}

async fn the_line_is(page: &Page, side: &Value, name: &str, key: &str) {
    let shown = page.line(&format!("{name}.{key}")).await;
    assert_eq!(shown.len(), 21, "{name}.{key}");
    for (second, value) in shown.into_iter().enumerate() {
        let what = format!("{name}.{key} in second {}", second + 1);
        assert_near(value, &side["seconds"][second][key], 0.1, &what);
    }
}

async fn the_keyboard_chooses_a_second(page: &Page, given: &Value) {
    for _ in 0..10 {
        if page.ask("return document.activeElement.id").await == "second" {
            break;
        }
        page.press(TAB).await;
    }
    for _ in 0..2 {
        page.press(ARROW_LEFT).await;
    }
    assert_eq!(page.text("#which").await, "19 of 21");
    for (index, name) in SIDES.into_iter().enumerate() {
        for key in ["ok", "lost", "refused", "sent"] {
            let shown = page.text(&format!("#moment [data-figure='{name}.{key}']")).await;
            assert_eq!(shown, given["sides"][index]["seconds"][18][key].to_string(), "{name}.{key}");
        }
    }
    assert_eq!(page.ask("return document.querySelectorAll('.cursor').length").await, 3);
}

async fn it_fits_and_is_readable(page: &Page) {
    for (width, device) in [(1280, "wide"), (360, "phone")] {
        for scheme in ["light", "dark"] {
            let size = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500 });
            page.devtools("Emulation.setDeviceMetricsOverride", size).await;
            let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
            page.devtools("Emulation.setEmulatedMedia", media).await;
            page.until(&format!("innerWidth === {width} && document.scrollingElement.scrollWidth <= innerWidth")).await;
            page.until("[...document.querySelectorAll('figure svg[role=img]')].every(s => Math.abs(s.viewBox.baseVal.width - s.clientWidth) < 2)").await;
            page.screenshot(&format!("{device}-{scheme}.png")).await;
            let contrasts = page.ask(CONTRASTS).await;
            for (what, contrast) in contrasts.as_object().unwrap() {
                assert!(contrast.as_f64().unwrap() >= 4.5, "{what} in {scheme}: {contrast}");
            }
            let paper = page.ask("return getComputedStyle(document.body).backgroundColor").await;
            assert_eq!(paper == "rgb(251, 251, 249)", scheme == "light", "{paper}");
        }
    }
}

/// Of text and its background, as WCAG has it.
const CONTRASTS: &str = "
    const light = color => {
        const [r, g, b] = color.match(/[0-9.]+/g).map(Number).map(c => c / 255).map(c => c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4);
        return .2126 * r + .7152 * g + .0722 * b;
    };
    const style = (element, property) => getComputedStyle(document.querySelector(element))[property];
    const contrast = (a, b) => (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    const card = light(style('section', 'backgroundColor')), sick = light(style('.sick', 'fill'));
    return {
        ink: contrast(light(style('td', 'color')), card),
        soft: contrast(light(style('caption', 'color')), card),
        health: contrast(light(style('svg text', 'fill')), sick),
        alone: contrast(light(style('th.alone', 'color')), card),
        naive: contrast(light(style('th.naive', 'color')), card),
        guarded: contrast(light(style('th.guarded', 'color')), card),
        limit: contrast(light(style('text.limit', 'fill')), card),
    };";
