//! What a guest tries to reach, and what it is told: small programs that run inside.

use std::{collections::BTreeMap, time::Duration};

use ovenbird_hostagent::v1 as host;
use ovenbird_testkit::wait_for;

use crate::{support::*, world::ask};

/// Tries each `ADDRESS:PORT`, all at once, and prints what came of it. The first argument is the seconds to wait.
pub(crate) const BY_TCP: &str = r#"
    my $wait = shift;
    for my $at (@ARGV) {
        next if fork;
        my $said = eval {
            local $SIG{ALRM} = sub { die "silence\n" };
            alarm $wait;
            my $s = IO::Socket::INET->new(PeerAddr => $at, Proto => "tcp") or die "$!\n";
            print $s "where\n";
            my $line = <$s>;
            alarm 0;
            $line;
        } // $@;
        syswrite STDOUT, "$at $said";
        exit;
    }
    1 while wait > 0;
"#;
pub(crate) const BY_UDP: &str = r#"
    my $wait = shift;
    for (@ARGV) {
        my $s = IO::Socket::INET->new(PeerAddr => $_, Proto => "udp");
        $s->send("where");
        if (!IO::Select->new($s)->can_read($wait)) { print "$_ silence\n"; next }
        my $said;
        print "$_ ", (defined $s->recv($said, 99)) ? $said : $!, "\n";
    }
"#;
/// Sends a word to an address from an address.
pub(crate) const SEND_FROM: &str = r#"
    my ($from, $to, $word) = @ARGV;
    my $s = IO::Socket::INET->new(LocalAddr => $from, PeerAddr => $to, Proto => "udp") or die "$@";
    $s->send($word) or die "$!";
"#;
/// Tells whoever comes to port 8080 where he is.
const SERVER: &str = r#"
    my $s = IO::Socket::INET->new(LocalPort => 8080, Listen => 5, ReuseAddr => 1) or die;
    while (my $c = $s->accept) { my $asked = <$c>; print $c "guest\n"; close $c }
"#;
/// Takes and gives bytes: the arguments are the server, the direction and how many.
pub(crate) const MOVE: &str = r#"
    my ($to, $way, $bytes) = @ARGV;
    my $s = IO::Socket::INET->new(PeerAddr => $to, Proto => "tcp") or die "$@";
    print $s "$way $bytes\n", $way eq "take" ? "x" x $bytes : "";
    my $all = do { local $/; <$s> };
    print $way eq "take" ? $all : length $all;
"#;

/// The guest's kernel on a destination that rules forbid; and our own word for one that does not answer.
const FORBIDDEN: &str = "No route to host";
pub(crate) const SILENT: &str = "silence";
/// For what does answer.
pub(crate) const LONG: Duration = Duration::from_secs(60);

fn perl(script: &str, args: &[String]) -> Vec<String> {
    let head = ["-MIO::Socket::INET", "-MIO::Select", "-e", script].map(str::to_owned);
    head.into_iter().chain(args.iter().cloned()).collect()
}

pub(crate) async fn run_perl(host: &Host, id: &str, script: &str, args: &[String]) -> String {
    let request = host::ExecRequest {
        sandbox_id: id.into(),
        cmd: "perl".into(),
        args: perl(script, args),
        timeout_sec: 120,
        ..Default::default()
    };
    let answer = host.client.clone().exec(request).await.unwrap().into_inner();
    assert_eq!(answer.exit_code, 0, "{}", String::from_utf8_lossy(&answer.stderr));
    String::from_utf8(answer.stdout).unwrap()
}

/// What a guest is told at each of these places.
pub(crate) async fn tried(
    host: &Host,
    id: &str,
    script: &str,
    wait: Duration,
    places: &[String],
) -> BTreeMap<String, String> {
    let args = [&[wait.as_secs().to_string()], places].concat();
    let said = run_perl(host, id, script, &args).await;
    let lines = said.lines().filter_map(|line| line.split_once(' '));
    let tried: BTreeMap<_, _> = lines.map(|(at, said)| (at.to_owned(), said.to_owned())).collect();
    assert_eq!(tried.len(), places.len(), "{said}");
    tried
}

/// Reaches all of the first, and is told of the others that they are forbidden.
pub(crate) async fn assert_told(
    host: &Host,
    id: &str,
    script: &str,
    reached: &[String],
    refused: &[String],
) {
    let said = tried(host, id, script, LONG, &[reached, refused].concat()).await;
    for place in reached {
        assert_eq!(said[place], *place, "{id} does not reach it");
    }
    for place in refused {
        assert_eq!(said[place], FORBIDDEN, "{id} at {place}");
    }
}

pub(crate) fn places<A: std::fmt::Display>(
    list: impl IntoIterator<Item = (A, u16)>,
) -> Vec<String> {
    list.into_iter().map(|(address, port)| format!("{address}:{port}")).collect()
}

pub(crate) async fn serve(host: &Host, id: &str) {
    let request = host::StartExecRequest {
        sandbox_id: id.into(),
        exec_id: "server".into(),
        cmd: "perl".into(),
        args: perl(SERVER, &[]),
        ..Default::default()
    };
    host.client.clone().start_exec(request).await.unwrap();
}

/// The host reaches the guest's server.
pub(crate) async fn assert_serves(host_ip: &str) {
    let said = wait_for("the guest's server", PATIENCE, || async {
        let stream = tokio::net::TcpStream::connect((host_ip, 8080)).await.ok()?;
        Some(ask(stream).await)
    });
    assert_eq!(said.await.unwrap(), "guest");
}
