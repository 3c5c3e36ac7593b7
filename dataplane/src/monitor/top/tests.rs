use super::super::fixture::{Hub, S};
use super::rows::View;
use super::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Modifier;
use wire::{DropReason, SiteSlot};

/// The view of a hub on a screen of some size.
struct Seat {
    hub: Hub,
    reader: Reader,
    app: App,
    terminal: Terminal<TestBackend>,
}

impl Seat {
    /// After 100 s, in which tenant 1001 sent ever more, 1002 every tenth second, and 1003 nothing.
    fn new(width: u16, height: u16) -> Self {
        let mut hub = Hub::new();
        for second in 0..100 {
            hub.relay(0, 100 + 9 * second, 1000);
            if second % 10 == 0 {
                hub.relay(1, 5, 60);
                hub.drop(1, DropReason::NoRoute, 3);
            }
            hub.pass();
        }
        let reader = hub.reader();
        let terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let mut this = Self { hub, reader, app: App::new(true), terminal };
        this.look();
        this.hub.relay(0, 1000, 1000);
        this.hub.relay(1, 7, 100);
        this.hub.drop(1, DropReason::NoRoute, 2);
        this.hub.drop(1, DropReason::TtlExpired, 1);
        this.hub.pass();
        this.look();
        this
    }

    fn look(&mut self) {
        self.app.look(&mut self.reader, self.hub.now(), "12:00:00");
    }

    fn press(&mut self, keys: &str) -> Go {
        let code = |c| match c {
            '\n' => KeyCode::Enter,
            '\u{1b}' => KeyCode::Esc,
            '↓' => KeyCode::Down,
            '↑' => KeyCode::Up,
            '⇥' => KeyCode::Tab,
            c => KeyCode::Char(c),
        };
        keys.chars().map(|c| self.app.key(KeyEvent::new(code(c), KeyModifiers::NONE))).last().unwrap()
    }

    /// What the screen says, without spaces at the ends of lines.
    fn screen(&mut self) -> String {
        // The first drawing tells how wide the chart is.
        for _ in 0..2 {
            self.app.read_chart(&self.reader);
            self.terminal.draw(|frame| screen::draw(frame, &mut self.app)).unwrap();
        }
        let buffer = self.terminal.backend().buffer();
        let mut out = String::new();
        for y in 0..buffer.area.height {
            let mut x = 0;
            let mut line = String::new();
            while x < buffer.area.width {
                let symbol = buffer[(x, y)].symbol();
                line.push_str(symbol);
                x += unicode_width::UnicodeWidthStr::width(symbol).max(1) as u16;
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }

    fn line(&mut self, y: usize) -> String {
        self.screen().lines().nth(y).unwrap().to_owned()
    }

    /// The first cells of the lines of the list.
    fn names(&mut self) -> Vec<String> {
        self.app.rows.iter().map(|row| row.cells[0].clone()).collect()
    }
}

fn assert_screen(seen: &str, expected: &str, name: &str) {
    let place = std::env::temp_dir().join(format!("ekiden-top-{}-{name}", std::process::id()));
    if seen != expected {
        std::fs::write(&place, seen).unwrap();
        panic!("{name} is another screen, {}:\n{seen}", place.display());
    }
}

#[test]
fn each_list_on_a_plain_terminal() {
    let mut seat = Seat::new(80, 24);
    assert_screen(&seat.screen(), include_str!("tests/tenants.txt"), "tenants.txt");
    seat.press("2");
    assert_screen(&seat.screen(), include_str!("tests/sites.txt"), "sites.txt");
    seat.press("3");
    assert_screen(&seat.screen(), include_str!("tests/ports.txt"), "ports.txt");
    seat.press("⇥");
    assert_screen(&seat.screen(), include_str!("tests/workers.txt"), "workers.txt");
    seat.press("5");
    assert_screen(&seat.screen(), include_str!("tests/drops.txt"), "drops.txt");
}

#[test]
fn a_tenant_opens_with_its_sites_and_drops_and_closes_again() {
    let mut seat = Seat::new(80, 24);
    seat.press("↓");
    seat.press("\n");
    assert_screen(&seat.screen(), include_str!("tests/opened.txt"), "opened.txt");
    seat.press("\u{1b}");
    assert_eq!((seat.app.opened, seat.app.selected), (None, 1));
    // From a site, its tenant.
    seat.press("2/1003");
    seat.press("\n\n");
    assert!(seat.line(3).contains("(tenant 1003)"));
    assert_eq!(seat.app.rows.len(), 2);
}

#[test]
fn trunks_have_a_list_where_there_are_any() {
    let mut seat = Seat::new(80, 24);
    seat.press("6");
    assert!(seat.app.view == View::Tenants && !seat.line(2).contains("Trunks") && seat.line(23).contains(" 1-5 "));
    seat.press("5⇥");
    assert!(seat.app.view == View::Tenants, "behind the last comes the first");

    seat.hub.trunk();
    seat.hub.control.site(SiteSlot(8)).up.set(0);
    seat.hub.control.site(SiteSlot(8)).loss_ppm.set(170_000);
    seat.hub.control.site(SiteSlot(8)).rtt_us.set(0);
    seat.look();
    for _ in 0..20 {
        seat.hub.carry(0, 100, 125_000);
        seat.hub.carry(1, 10, 12_500);
        seat.hub.pass();
        seat.look();
    }
    seat.press("6↓");
    assert_screen(&seat.screen(), include_str!("tests/trunks.txt"), "trunks.txt");
    // The sum of its lanes has no ring; what was seen of it is shown.
    seat.press("g");
    assert!(seat.line(18).starts_with("trunk osaka: a column a look"), "{}", seat.screen());
    assert!(seat.line(19).starts_with("in      1.10M"), "{}", seat.screen());
    seat.press("/down\n");
    assert_eq!(seat.names(), ["osaka/1"]);

    // What it carries is its tenant's, and no lane is anybody's site.
    seat.press("\u{1b}2/trunk\n");
    assert_eq!(
        seat.app.rows.iter().map(|row| &row.cells[..3]).collect::<Vec<_>>(),
        [["WAN00001001", "trunk:osaka", "up"]]
    );
    seat.press("\u{1b}n");
    assert_eq!(seat.app.rows.len(), 7);
    seat.hub.control.site(SiteSlot(6)).session.set(0);
    seat.look();
    assert_eq!(seat.app.rows[3].cells[1..3], ["trunk:osaka", "DOWN"]);
}

#[test]
fn filter_and_sort() {
    let mut seat = Seat::new(80, 24);
    assert_eq!(seat.names(), ["WAN00001001", "WAN00001002", "1003"]);
    // From here on a line is chosen.
    seat.press("g");
    seat.press("n");
    assert_eq!(seat.names(), ["1003", "WAN00001001", "WAN00001002"]);
    seat.press("n");
    assert_eq!(seat.names(), ["WAN00001002", "WAN00001001", "1003"]);
    seat.press("d");
    assert_eq!(seat.names(), ["WAN00001002", "1003", "WAN00001001"]);
    seat.press("o");
    assert_eq!(seat.names(), ["WAN00001001", "WAN00001002", "1003"]);
    seat.press("r");
    assert_eq!(seat.names(), ["1003", "WAN00001002", "WAN00001001"]);
    // The selected line stays the same one wherever the order puts it.
    assert_eq!(seat.app.title(), "WAN00001001 株式会社 駅伝 東京本社ネットワークサービス");
    // Letters of commands are letters while a filter is typed.
    seat.press("/駅q");
    assert!(seat.line(23).starts_with("/駅q"));
    assert!(seat.names().is_empty() && seat.line(4).contains("Nothing matches"));
    seat.app.key(KeyEvent::new(KeyCode::Backspace, KeyModifiers::NONE));
    assert_eq!(seat.names(), ["WAN00001001"]);
    seat.press("\n");
    assert!(seat.line(2).ends_with("/駅  by out, reversed"));
    seat.press("\u{1b}");
    assert_eq!(seat.names().len(), 3);
    assert_eq!(seat.press("q"), Go::Quit);
}

#[test]
fn a_hub_that_is_gone_is_said_to_be_and_the_next_is_found() {
    let mut seat = Seat::new(80, 24);
    seat.hub.second += 12;
    seat.look();
    assert_screen(&seat.screen(), include_str!("tests/gone.txt"), "gone.txt");
    seat.hub = std::mem::replace(&mut seat.hub, Hub::new()).restarted(7);
    seat.look();
    // Nothing can be said of rates after one look.
    assert!(seat.line(1).starts_with(" in  - bit/s"), "{}", seat.line(1));
    seat.hub.relay(2, 10, 100);
    seat.hub.pass();
    seat.look();
    assert_eq!(seat.names(), ["1003", "WAN00001001", "WAN00001002"]);
    assert!(seat.line(1).starts_with(" in  8.00 kbit/s 10.0 pkt/s"), "{}", seat.line(1));
    seat.hub.control.hub.ticked_ns.set(seat.hub.now().ns - 10 * S);
    seat.look();
    assert!(seat.line(1).contains("GONE OR STUCK: last tick 10 s ago"));
}

#[test]
fn a_truncated_segment_is_said_to_be_one() {
    let mut seat = Seat::new(80, 24);
    std::fs::File::options().write(true).open(seat.hub.path()).unwrap().set_len(4096).unwrap();
    seat.look();
    assert!(seat.line(1).contains("was truncated while it was read"), "{}", seat.line(1));
    assert!(seat.screen().contains("WAN00001001"));
}

#[test]
fn any_size_of_screen_will_do() {
    for (width, height) in [(1, 1), (2, 3), (10, 4), (20, 10), (79, 16), (80, 17), (132, 43), (300, 100)] {
        let mut seat = Seat::new(width, height);
        for keys in ["1", "2", "3", "4", "5", "1\n", "/駅"] {
            seat.press(keys);
            let screen = seat.screen();
            assert_eq!(screen.lines().count(), usize::from(height));
            assert!(screen.lines().all(|line| unicode_width::UnicodeWidthStr::width(line) <= usize::from(width)));
        }
    }
    let mut seat = Seat::new(80, 24);
    seat.screen();
    seat.terminal.backend_mut().resize(40, 8);
    assert_eq!(seat.screen().lines().count(), 8);
    seat.terminal.backend_mut().resize(120, 30);
    assert!(seat.line(29).contains("quit"));
}

#[test]
fn nothing_hostile_reaches_the_terminal_and_a_plain_one_gets_ascii() {
    let mut seat = Seat::new(200, 24);
    let harmless = |c: char| !c.is_control() && !('\u{200b}'..='\u{202e}').contains(&c);
    assert!(seat.screen().lines().all(|line| line.chars().all(harmless)));
    assert!(seat.screen().contains("evil\\u{1b}[2J\\u{202e}\\u{d}\\u{a}"));
    seat.app.utf8 = false;
    for keys in ["1", "2", "3", "4", "5", "1\n"] {
        seat.press(keys);
        assert!(seat.screen().is_ascii(), "{}", seat.screen());
    }
}

#[test]
fn the_selected_line_is_in_sight_however_long_the_list() {
    let mut seat = Seat::new(80, 17);
    seat.press("2");
    let marked = |seat: &mut Seat| {
        seat.screen();
        let buffer = seat.terminal.backend().buffer();
        let lines = (4..buffer.area.height.min(16))
            .filter(|y| buffer[(0, *y)].modifier.contains(Modifier::REVERSED))
            .collect::<Vec<_>>();
        (lines, seat.app.title())
    };
    let first = marked(&mut seat);
    assert_eq!(first.0, [4]);
    // A filter line less: six sites do not fit a screen of 12 lines.
    seat.terminal.backend_mut().resize(80, 8);
    for _ in 0..5 {
        seat.press("↓");
        assert_eq!(marked(&mut seat).0.len(), 1);
    }
    assert_eq!(seat.app.selected, 5);
    seat.press("g");
    assert_eq!(marked(&mut seat), first);
}
