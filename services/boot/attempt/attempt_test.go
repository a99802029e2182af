package attempt

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"lunboot/store"
)

// tape records a boot as the services see it.
type tape struct {
	t   *testing.T
	at  time.Time
	seq int64
	s   *State
	all []*State
}

var (
	start   = time.Date(2026, 11, 22, 14, 3, 0, 0, time.UTC)
	theMAC  = store.MAC{0x52, 0x54, 0, 0x77, 0, 0x0a}
	theAddr = netip.MustParseAddr("10.77.0.50")
	ipxeID  = "400027231234"
	osID    = "00023d000001"
)

func newTape(t *testing.T) *tape { return &tape{t: t, at: start} }

// see is an event so many milliseconds after the one before.
func (p *tape) see(after int, kind store.EventKind, d store.Detail) *tape {
	p.t.Helper()
	p.at = p.at.Add(time.Duration(after) * time.Millisecond)
	p.seq++
	e := store.Event{Seq: p.seq, At: p.at, Kind: kind, MAC: theMAC, Addr: theAddr, Detail: d}
	if strings.HasPrefix(string(kind), "iscsi.") {
		e.MAC = store.MAC{}
	}
	if Begins(p.s, e) {
		if p.s != nil {
			p.s.Ended(p.at)
		}
		p.s = New(store.AttemptID(len(p.all)+1), "key", p.at)
		p.all = append(p.all, p.s)
	}
	if p.s != nil {
		p.s.Fold(e)
	}
	return p
}

func (p *tape) quiet(d time.Duration) *tape {
	p.at = p.at.Add(d)
	if p.s != nil {
		p.s.Expire(p.at, Usual{})
	}
	return p
}

var (
	firmwareUEFI = store.Detail{PXE: true, Firmware: "UEFI", Arch: "x86-64", Interface: "eth0", Class: "PXEClient:Arch:00007:UNDI:003000"}
	ipxeBIOS     = store.Detail{PXE: true, IPXE: true, Firmware: "BIOS", Arch: "x86", Interface: "eth0", UserClass: "iPXE"}
	ipxeUEFI     = store.Detail{PXE: true, IPXE: true, Firmware: "UEFI", Arch: "x86-64", Interface: "eth0", UserClass: "iPXE"}
	linux        = store.Detail{Class: "udhcp 1.35.0", Hostname: "lab-12"}
)

func with(d store.Detail, loader string) store.Detail {
	d.Loader = loader
	return d
}

// dora is the whole DHCP exchange of one stage.
func (p *tape) dora(d store.Detail, loader string) *tape {
	return p.see(0, store.EventDHCPDiscover, d).see(1, store.EventDHCPOffer, with(d, loader)).
		see(1000, store.EventDHCPDiscover, d).see(1, store.EventDHCPOffer, with(d, loader)).
		see(2000, store.EventDHCPRequest, d).see(2, store.EventDHCPAck, with(d, loader))
}

func (p *tape) tftp(name string, total int64) *tape {
	d := store.Detail{File: name, Loader: name, Total: total}
	sent := d
	sent.Bytes, sent.Millis = total, 400
	return p.see(50, store.EventTFTPProbe, d).see(20, store.EventTFTPStart, d).see(400, store.EventTFTPSent, sent)
}

func (p *tape) script() *tape {
	return p.see(300, store.EventScriptSent, store.Detail{Profile: "san", MatchedBy: "mac", Script: "#!ipxe\nsanboot iscsi:10.77.0.1::3260:2:iqn.2026-11.lunboot:yard\n", Key: "key"})
}

func lun(n int) *int { return &n }

func iscsi(id, session string) store.Detail {
	return store.Detail{ISID: id, Session: session, Initiator: "iqn.2026-11.lunboot:lab-12", Auth: "mutual CHAP with MD5", LUN: lun(2), Volume: "debian"}
}

func (p *tape) login(id, session string) *tape {
	return p.see(100, store.EventISCSILogin, iscsi(id, session)).see(5, store.EventISCSIFirstRead, iscsi(id, session))
}

func (p *tape) io(after int, id, session string, n int64) *tape {
	d := iscsi(id, session)
	d.Bytes = n
	return p.see(after, store.EventISCSIIO, d)
}

func (p *tape) expect(outcome store.Outcome, stage store.StageName, states string) *tape {
	p.t.Helper()
	var got []string
	for _, st := range p.s.Stages {
		got = append(got, string(st.State))
	}
	if p.s.Outcome != outcome || p.s.Stage != stage || strings.Join(got, " ") != states {
		p.t.Errorf("%s at %s: %s\nwant %s at %s: %s", p.s.Outcome, p.s.Stage, strings.Join(got, " "), outcome, stage, states)
	}
	return p
}

func (p *tape) detail(name store.StageName, want string) *tape {
	p.t.Helper()
	if got := p.s.stage(name).Detail; got != want {
		p.t.Errorf("%s says %q, want %q", name, got, want)
	}
	return p
}

// biosBoot is QEMU's ROM, which is an iPXE itself: DHCP straight to the script,
// two logins of iPXE (GRUB resets the disk), then Linux.
func biosBoot(p *tape) *tape {
	return p.dora(ipxeBIOS, "").script().
		login(ipxeID, "s1").io(500, ipxeID, "s1", 900_000).
		see(20, store.EventISCSIClosed, bytes(iscsi(ipxeID, "s1"), 1_000_000)).
		login("400027239999", "s2").io(2500, "400027239999", "s2", 18_000_000).
		see(3000, store.EventDHCPDiscover, linux).see(1, store.EventDHCPOffer, linux).see(1, store.EventDHCPRequest, linux).see(1, store.EventDHCPAck, linux).
		login(osID, "s3")
}

func bytes(d store.Detail, n int64) store.Detail {
	d.Bytes = n
	return d
}

func TestABIOSBootWithIPXEAsItsFirmware(t *testing.T) {
	p := biosBoot(newTape(t))
	p.expect(store.OutcomeUp, store.StageUp, "done done skipped done done done done").
		detail(store.StageAsk, "iPXE on BIOS asked on eth0").
		detail(store.StageAddress, "10.77.0.50, next: its script").
		detail(store.StageLoader, "Not needed: its firmware is an iPXE").
		detail(store.StageScript, "Profile san, matched by MAC").
		detail(store.StageLogin, "Logged in with mutual CHAP").
		detail(store.StageRead, "LUN 2, volume debian: 19 MB read so far").
		detail(store.StageUp, "Its operating system logged in and reads its volume")
	if len(p.all) != 1 {
		t.Errorf("one boot is read as %d attempts", len(p.all))
	}
	if p.s.Address != "10.77.0.50" || p.s.Firmware != "BIOS" || !strings.Contains(p.s.Script, "sanboot") || p.s.MAC != theMAC {
		t.Errorf("%+v", p.s.Attempt)
	}
	if p.s.Trouble() {
		t.Error("a good boot is taken for a troubled one")
	}
}

// OVMF's PXE is not an iPXE: it fetches one over TFTP, after it asked for the
// size and hung up.
func uefiBoot(p *tape) *tape {
	return p.see(0, store.EventDHCPDiscover, firmwareUEFI).see(1, store.EventDHCPOffer, with(firmwareUEFI, "5254007700aa/snponly.efi")).
		see(4000, store.EventDHCPRequest, firmwareUEFI).see(2, store.EventDHCPAck, with(firmwareUEFI, "5254007700aa/snponly.efi")).
		tftp("5254007700aa/snponly.efi", 173792).
		see(3000, store.EventDHCPDiscover, ipxeUEFI).see(1, store.EventDHCPOffer, ipxeUEFI).
		see(1000, store.EventDHCPDiscover, ipxeUEFI).see(2000, store.EventDHCPRequest, ipxeUEFI).see(1, store.EventDHCPAck, ipxeUEFI).
		script().login(ipxeID, "s1").io(1500, ipxeID, "s1", 18_000_000).
		see(10, store.EventISCSIClosed, bytes(iscsi(ipxeID, "s1"), 18_200_000)).
		login(osID, "s2")
}

func TestAUEFIBootThroughALoader(t *testing.T) {
	p := uefiBoot(newTape(t))
	p.expect(store.OutcomeUp, store.StageUp, "done done done done done done done").
		detail(store.StageAsk, "UEFI x86-64 firmware asked on eth0").
		detail(store.StageAddress, "10.77.0.50, next: snponly.efi").
		detail(store.StageLoader, "173,792 bytes in 0.4 s").
		detail(store.StageRead, "LUN 2, volume debian: 18 MB read so far")
	if len(p.all) != 1 || p.s.Trouble() {
		t.Errorf("%d attempts, trouble %v", len(p.all), p.s.Trouble())
	}
}

func TestAnAttemptSaysWhereTheQuestionCameFrom(t *testing.T) {
	d := firmwareUEFI
	d.Relay, d.Port = "10.88.0.1", "switch tor, port Gi0/3 (VLAN 12)"
	newTape(t).see(0, store.EventDHCPDiscover, d).
		detail(store.StageAsk, "UEFI x86-64 firmware asked on eth0 through the relay 10.88.0.1, switch tor, port Gi0/3 (VLAN 12)")
}

func TestAUEFIBootOverHTTP(t *testing.T) {
	p := newTape(t)
	p.see(0, store.EventDHCPDiscover, firmwareUEFI).see(4000, store.EventDHCPRequest, firmwareUEFI).see(1, store.EventDHCPAck, with(firmwareUEFI, "ipxe.efi")).
		see(100, store.EventLoaderSent, store.Detail{Loader: "ipxe.efi", Bytes: 850528, Millis: 120}).dora(ipxeUEFI, "").script().login(ipxeID, "s1").login(osID, "s2").
		expect(store.OutcomeUp, store.StageUp, "done done done done done done done").
		detail(store.StageLoader, "850,528 bytes in 0.1 s")
}

func TestFirmwareThatRepeatsItsQuestionHasNotBegunAgain(t *testing.T) {
	p := newTape(t)
	for _, pause := range []int{0, 4000, 8000, 16000} {
		p.see(pause, store.EventDHCPDiscover, firmwareUEFI).see(1, store.EventDHCPOffer, firmwareUEFI)
	}
	p.expect(store.OutcomeRunning, store.StageAddress, "done running waiting waiting waiting waiting waiting")
	if len(p.all) != 1 {
		t.Errorf("%d attempts", len(p.all))
	}
}

func TestANewAttemptBegins(t *testing.T) {
	for name, boot := range map[string]func(*tape) *tape{
		"after power-off in the middle": func(p *tape) *tape {
			return p.dora(firmwareUEFI, "snponly.efi").tftp("snponly.efi", 9).dora(firmwareUEFI, "snponly.efi")
		},
		"after a boot that went well": func(p *tape) *tape { return biosBoot(p).dora(ipxeBIOS, "") },
		"of an iPXE in ROM that starts over after its script": func(p *tape) *tape {
			return p.dora(ipxeBIOS, "").script().dora(ipxeBIOS, "")
		},
		"of an iPXE in ROM that never asked for its script": func(p *tape) *tape {
			return p.dora(ipxeBIOS, "").quiet(30*time.Second).dora(ipxeBIOS, "")
		},
		"with the loader, when another server gives the addresses": func(p *tape) *tape {
			return biosBoot(p).quiet(time.Hour).tftp("snponly.efi", 9)
		},
		"with the login of an iPXE that has its own script": func(p *tape) *tape {
			return biosBoot(p).quiet(time.Hour).login("400027235555", "s9")
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := boot(newTape(t))
			if len(p.all) != 2 {
				t.Fatalf("%d attempts", len(p.all))
			}
			if p.all[0].Outcome == store.OutcomeRunning {
				t.Error("the attempt before is still running")
			}
		})
	}
}

func TestALoaderThatTheScriptChainsToBelongsToTheSameAttempt(t *testing.T) {
	p := newTape(t).dora(ipxeBIOS, "").script().tftp("undionly.kpxe", 74213).dora(ipxeBIOS, "").script().login(ipxeID, "s1")
	if len(p.all) != 1 {
		t.Errorf("%d attempts", len(p.all))
	}
	p.expect(store.OutcomeRunning, store.StageRead, "done done done done done done waiting")
}

func TestTheScriptThatAnIPXELooksForBesideItselfIsNotItsLoader(t *testing.T) {
	p := newTape(t).dora(firmwareUEFI, "ipxe-arm64.efi").tftp("ipxe-arm64.efi", 267264)
	p.see(900, store.EventTFTPStart, store.Detail{File: "525400770a0a/autoexec.ipxe", Total: 941})
	p.see(5, store.EventTFTPSent, store.Detail{File: "525400770a0a/autoexec.ipxe", Bytes: 941, Total: 941, Millis: 5})
	if st := p.s.stage(store.StageLoader); st.State != store.StageDone || !strings.Contains(st.Detail, "267,264 bytes") {
		t.Errorf("the loader's stage is %+v", st)
	}
}

func TestAnOperatingSystemsDHCPBeginsNothing(t *testing.T) {
	p := newTape(t).dora(linux, "")
	if len(p.all) != 0 {
		t.Error("a machine that did not ask to boot has an attempt")
	}
}

// Every limit of silence, stage by stage.
func TestSilenceIsAFailureAfterItsTime(t *testing.T) {
	for _, c := range []struct {
		name  string
		boot  func(*tape) *tape
		limit time.Duration
		stage store.StageName
	}{
		{"asked, no answer taken", func(p *tape) *tape { return p.see(0, store.EventDHCPDiscover, firmwareUEFI) }, 30 * time.Second, store.StageAddress},
		{"address, no request for the loader", func(p *tape) *tape { return p.dora(firmwareUEFI, "snponly.efi") }, 15 * time.Second, store.StageLoader},
		{"loader stalls", func(p *tape) *tape {
			return p.dora(firmwareUEFI, "snponly.efi").see(10, store.EventTFTPStart, store.Detail{File: "snponly.efi"})
		}, 15 * time.Second, store.StageLoader},
		{"loader sent, no iPXE", func(p *tape) *tape { return p.dora(firmwareUEFI, "snponly.efi").tftp("snponly.efi", 9) }, 45 * time.Second, store.StageScript},
		{"iPXE has its address, no script", func(p *tape) *tape { return p.dora(ipxeBIOS, "") }, 20 * time.Second, store.StageScript},
		{"our iPXE has its address, no script", func(p *tape) *tape {
			return p.dora(firmwareUEFI, "snponly.efi").tftp("snponly.efi", 9).dora(ipxeUEFI, "")
		}, 20 * time.Second, store.StageScript},
		{"script, no login", func(p *tape) *tape { return p.dora(ipxeBIOS, "").script() }, 30 * time.Second, store.StageLogin},
		{"login, no read", func(p *tape) *tape {
			return p.dora(ipxeBIOS, "").script().see(100, store.EventISCSILogin, iscsi(ipxeID, "s1"))
		}, 20 * time.Second, store.StageRead},
		{"read, no operating system", func(p *tape) *tape { return p.dora(ipxeBIOS, "").script().login(ipxeID, "s1") }, 180 * time.Second, store.StageUp},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := c.boot(newTape(t))
			at, ok := p.s.Deadline(Usual{})
			if !ok || at.Sub(p.at) != c.limit {
				t.Fatalf("the deadline is after %s, want %s", at.Sub(p.at), c.limit)
			}
			if p.s.Expire(at.Add(-time.Millisecond), Usual{}) {
				t.Error("it fails too early")
			}
			if !p.s.Expire(at, Usual{}) || p.s.Outcome != store.OutcomeFailed || p.s.Stage != c.stage {
				t.Errorf("%s at %s, want failed at %s", p.s.Outcome, p.s.Stage, c.stage)
			}
			if _, silent := p.s.Silent(); !silent || !strings.Contains(p.s.stage(c.stage).Detail, "othing") {
				t.Errorf("its line is %q", p.s.stage(c.stage).Detail)
			}
		})
	}
}

func TestAPatientLimitForASlowMachine(t *testing.T) {
	slow := store.Attempt{Outcome: store.OutcomeUp, Started: start}
	for i, name := range store.Stages() {
		at := start.Add(time.Duration(i) * 20 * time.Second)
		slow.Stages = append(slow.Stages, store.Stage{Name: name, State: store.StageDone, At: at, Ended: at})
	}
	p := newTape(t).dora(firmwareUEFI, "snponly.efi")
	at, _ := p.s.Deadline(UsualOf([]store.Attempt{slow}))
	if at.Sub(p.at) != time.Minute {
		t.Errorf("a machine that usually takes 20 s is given %s", at.Sub(p.at))
	}
}

func TestALatePacketTurnsTheFailureBack(t *testing.T) {
	p := newTape(t).dora(firmwareUEFI, "snponly.efi").quiet(16 * time.Second)
	p.expect(store.OutcomeFailed, store.StageLoader, "done done failed waiting waiting waiting waiting")
	p.tftp("snponly.efi", 173792)
	p.expect(store.OutcomeRunning, store.StageLoader, "done done done waiting waiting waiting waiting")
	p.quiet(50*time.Second).expect(store.OutcomeFailed, store.StageScript, "done done done failed waiting waiting waiting")
	p.dora(ipxeUEFI, "").script()
	p.expect(store.OutcomeRunning, store.StageScript, "done done done done waiting waiting waiting")
	if len(p.all) != 1 {
		t.Errorf("%d attempts", len(p.all))
	}
}

// A stage that failed, and was then passed by a way that cannot be seen from here,
// is not shown as if it had gone well.
func TestAFailedStageThatWasPassedAllTheSame(t *testing.T) {
	p := newTape(t).dora(ipxeBIOS, "").see(9, store.EventScriptWithheld, store.Detail{Reason: "nobody knows whose address that is"})
	p.expect(store.OutcomeFailed, store.StageScript, "done done skipped failed waiting waiting waiting")
	p.login(ipxeID, "s1").expect(store.OutcomeRunning, store.StageRead, "done done skipped unsure done done waiting")
	p.detail(store.StageScript, "The script was withheld: nobody knows whose address that is, and yet it came further")
}

func TestALateEventSaysForHowLongNothingWasHeard(t *testing.T) {
	p := newTape(t).dora(ipxeBIOS, "").quiet(30 * time.Second).script()
	p.detail(store.StageScript, "Profile san, matched by MAC, after 30 s of silence")
}

func TestFailuresThatWeSee(t *testing.T) {
	begun := func(p *tape) *tape { return p.dora(ipxeBIOS, "").script() }
	for _, c := range []struct {
		name   string
		boot   func(*tape) *tape
		stage  store.StageName
		states string
		line   string
	}{
		{"wrong LUN", func(p *tape) *tape {
			return begun(p).see(50, store.EventISCSILogin, iscsi(ipxeID, "s1")).see(1, store.EventISCSINoLUN, store.Detail{ISID: ipxeID, LUN: lun(0), Mapped: []int{2}, Sense: "05/25/00"})
		}, store.StageRead, "done done skipped done done failed waiting", "Asked for LUN 0, which is not mapped"},
		{"refused login", func(p *tape) *tape {
			return begun(p).see(50, store.EventISCSIRefused, store.Detail{ISID: ipxeID, Status: "0201", Reason: "another CHAP secret"})
		}, store.StageLogin, "done done skipped done failed waiting waiting", "Refused: another CHAP secret"},
		{"report of a mutual mismatch", func(p *tape) *tape {
			return begun(p).see(50, store.EventReport, store.Detail{Step: "sanboot", Code: "20d623c"})
		}, store.StageLogin, "done done skipped done failed waiting waiting", "It said: the machine did not believe the target: the target's CHAP secret is not the expected one"},
		{"report of an empty disk", func(p *tape) *tape {
			return begun(p).login(ipxeID, "s1").see(50, store.EventReport, store.Detail{Step: "sanboot", Code: "1d852039"})
		}, store.StageRead, "done done skipped done done failed waiting", "It said: the disk has nothing to start on it"},
		{"report of a closed port", func(p *tape) *tape {
			return begun(p).see(50, store.EventReport, store.Detail{Step: "sanboot", Code: "0f0a6039"})
		}, store.StageLogin, "done done skipped done failed waiting waiting", "It said: the connection was refused: nothing listens on that port, or a firewall rejects it"},
		{"aborted loader", func(p *tape) *tape {
			return p.dora(firmwareUEFI, "snponly.efi").see(10, store.EventTFTPStart, store.Detail{File: "a/snponly.efi", Total: 100}).
				see(10, store.EventTFTPAbort, store.Detail{File: "a/snponly.efi", Bytes: 12, Total: 100})
		}, store.StageLoader, "done done failed waiting waiting waiting waiting", "Stopped fetching snponly.efi (12 %)"},
		{"conflict", func(p *tape) *tape { return p.dora(ipxeBIOS, "").see(9, store.EventScriptConflict, store.Detail{}) },
			store.StageScript, "done done skipped failed waiting waiting waiting", "Its names belong to different machines"},
		{"withheld", func(p *tape) *tape { return p.dora(ipxeBIOS, "").see(9, store.EventScriptWithheld, store.Detail{}) },
			store.StageScript, "done done skipped failed waiting waiting waiting", "The script was withheld: its address is not known to belong to it"},
		{"no address", func(p *tape) *tape {
			return p.see(0, store.EventDHCPDiscover, firmwareUEFI).see(1, store.EventDHCPNoAddress, store.Detail{})
		}, store.StageAddress, "done failed waiting waiting waiting waiting waiting", "No address was left"},
		{"unknown subnet", func(p *tape) *tape {
			return p.see(0, store.EventDHCPDiscover, firmwareUEFI).see(1, store.EventDHCPNoSubnet, store.Detail{Relay: "10.88.0.1"})
		}, store.StageAddress, "done failed waiting waiting waiting waiting waiting", "Its network, behind the relay 10.88.0.1, is not known here"},
		{"declined", func(p *tape) *tape { return p.dora(firmwareUEFI, "x").see(1, store.EventDHCPDecline, firmwareUEFI) },
			store.StageAddress, "done failed waiting waiting waiting waiting waiting", "10.77.0.50 is in use by somebody else"},
		{"no loader", func(p *tape) *tape {
			return p.see(0, store.EventDHCPDiscover, firmwareUEFI).see(1, store.EventDHCPNoLoader, store.Detail{Firmware: "UEFI", Arch: "arm32"})
		}, store.StageLoader, "done unsure failed waiting waiting waiting waiting", "No loader for UEFI arm32"},
		{"missing file", func(p *tape) *tape {
			return p.dora(firmwareUEFI, "x").see(1, store.EventTFTPMissing, store.Detail{File: "bootmgfw.efi"})
		}, store.StageLoader, "done done failed waiting waiting waiting waiting", "Asked for bootmgfw.efi, which is not here"},
		{"medium error", func(p *tape) *tape {
			return begun(p).see(1, store.EventISCSILogin, iscsi(ipxeID, "s1")).see(9, store.EventISCSIIOFailed, store.Detail{ISID: ipxeID, Volume: "debian", Reason: "input/output error"})
		}, store.StageRead, "done done skipped done done failed waiting", "Volume debian: input/output error"},
		{"operating system refused", func(p *tape) *tape {
			return begun(p).login(ipxeID, "s1").see(9, store.EventISCSIRefused, store.Detail{ISID: osID, Status: "0201", Reason: "another CHAP secret"})
		}, store.StageUp, "done done skipped done done done failed", "Its operating system was refused: another CHAP secret"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := c.boot(newTape(t))
			p.expect(store.OutcomeFailed, c.stage, c.states).detail(c.stage, c.line)
			if !p.s.Trouble() {
				t.Error("no trouble is noted")
			}
		})
	}
}

func TestADeclinedAddressIsAskedForAgainInTheSameAttempt(t *testing.T) {
	p := newTape(t).dora(firmwareUEFI, "x").see(1, store.EventDHCPDecline, firmwareUEFI).see(10000, store.EventDHCPDiscover, firmwareUEFI)
	p.expect(store.OutcomeRunning, store.StageAddress, "done running waiting waiting waiting waiting waiting")
	if len(p.all) != 1 {
		t.Errorf("%d attempts", len(p.all))
	}
}

// Linux sends REPORT LUNS and INQUIRY to LUN 0 of every target.
func TestAnOperatingSystemThatLooksForLUN0MeansNoHarm(t *testing.T) {
	p := newTape(t).dora(ipxeBIOS, "").script().login(ipxeID, "s1").see(9, store.EventISCSILogin, iscsi(osID, "s2")).
		see(1, store.EventISCSINoLUN, store.Detail{ISID: osID, LUN: lun(0), Mapped: []int{2}}).see(1, store.EventISCSIFirstRead, iscsi(osID, "s2"))
	p.expect(store.OutcomeUp, store.StageUp, "done done skipped done done done done")
	if p.s.Trouble() {
		t.Error("it is taken for trouble")
	}
}

func TestTheSignsOfAnOperatingSystem(t *testing.T) {
	begun := func() *tape { return newTape(t).dora(ipxeBIOS, "").script().login(ipxeID, "s1") }
	t.Run("it says so", func(t *testing.T) {
		begun().see(1, store.EventReportUp, store.Detail{}).expect(store.OutcomeUp, store.StageUp, "done done skipped done done done done")
		begun().see(1, store.EventInstalled, store.Detail{}).expect(store.OutcomeUp, store.StageUp, "done done skipped done done done done")
	})
	t.Run("Windows asks for an address", func(t *testing.T) {
		begun().see(1, store.EventDHCPDiscover, store.Detail{Class: "MSFT 5.0", Hostname: "LAB-12"}).
			expect(store.OutcomeUp, store.StageUp, "done done skipped done done done done").
			detail(store.StageUp, "Windows asked for an address as LAB-12")
	})
	t.Run("a Linux initial RAM disk that asks for an address is not up yet", func(t *testing.T) {
		begun().see(1, store.EventDHCPDiscover, linux).
			expect(store.OutcomeRunning, store.StageUp, "done done skipped done done done running").
			detail(store.StageUp, "Its operating system asked for an address as lab-12")
	})
	t.Run("a login without a read is not up yet", func(t *testing.T) {
		begun().see(1, store.EventISCSILogin, iscsi(osID, "s2")).
			expect(store.OutcomeRunning, store.StageUp, "done done skipped done done done running")
	})
	t.Run("three minutes of steady I/O are a guess", func(t *testing.T) {
		p := begun()
		for range 36 { // a kernel that comes slowly is none
			p.io(5000, ipxeID, "s1", 1000)
		}
		p.expect(store.OutcomeRunning, store.StageUp, "done done skipped done done done waiting")
		p.io(5000, ipxeID, "s1", 1000).expect(store.OutcomeUpUnconfirmed, store.StageUp, "done done skipped done done done unsure")
		p.see(1, store.EventReportUp, store.Detail{}).expect(store.OutcomeUp, store.StageUp, "done done skipped done done done done")
	})
	t.Run("I/O with pauses is none", func(t *testing.T) {
		p := begun()
		for range 12 {
			p.io(25000, ipxeID, "s1", 1000)
		}
		p.expect(store.OutcomeRunning, store.StageUp, "done done skipped done done done waiting")
	})
}

func TestABootThatDoesNotUseTheSAN(t *testing.T) {
	p := newTape(t).dora(ipxeBIOS, "").see(9, store.EventScriptSent, store.Detail{Profile: "rescue", Script: "#!ipxe\nkernel http://10.77.0.1/files/vmlinuz\nboot\n"}).
		see(500, store.EventFileSent, store.Detail{File: "debian/vmlinuz", Bytes: 8_000_000})
	p.expect(store.OutcomeRunning, store.StageUp, "done done skipped done skipped skipped running").
		detail(store.StageUp, "Fetched vmlinuz, 8.0 MB")
	p.see(9000, store.EventDHCPDiscover, linux).expect(store.OutcomeUp, store.StageUp, "done done skipped done skipped skipped done")

	p = newTape(t).dora(ipxeBIOS, "").see(9, store.EventScriptSent, store.Detail{Profile: "local", Script: "#!ipxe\nexit\n"}).quiet(4 * time.Minute)
	p.expect(store.OutcomeUpUnconfirmed, store.StageUp, "done done skipped done skipped skipped unsure")
}

// A person may take an hour over an installer's first question.
func TestAnInstallerThatWaitsForSomebodyHasNotFailed(t *testing.T) {
	const script = "#!ipxe\n# Boot script of lab-12\nsanhook --drive 0x80 iscsi:10.77.0.1::3260:2:iqn.2026-11.lunboot:yard || goto no_volume\n" +
		"kernel http://10.77.0.1/files/mini.iso/linux || goto no_kernel\nboot || goto no_start\n\n:no_volume\necho\n"
	waits := func(script string) *tape {
		return newTape(t).dora(ipxeBIOS, "").see(9, store.EventScriptSent, store.Detail{Profile: "deb", Script: script}).login(ipxeID, "s1").
			see(500, store.EventFileSent, store.Detail{File: "mini.iso/linux", Bytes: 8_000_000}).
			see(30_000, store.EventISCSIClosed, bytes(iscsi(ipxeID, "s1"), 3000)).quiet(time.Hour)
	}
	p := waits(script).expect(store.OutcomeUpUnconfirmed, store.StageUp, "done done skipped done done done unsure").
		detail(store.StageUp, "No sign either way: its installer has not used the volume, and may wait for somebody")
	p.login(osID, "s2").expect(store.OutcomeUp, store.StageUp, "done done skipped done done done done")
	// A kernel of an operator's own script is to run from the volume.
	waits(strings.ReplaceAll(script, "no_volume", "lunboot1")).expect(store.OutcomeFailed, store.StageUp, "done done skipped done done done failed")
}

func TestAnUnknownMachineWaits(t *testing.T) {
	p := newTape(t).dora(ipxeBIOS, "")
	for range 30 {
		p.see(5000, store.EventScriptWaiting, store.Detail{})
		p.s.Expire(p.at, Usual{})
	}
	p.expect(store.OutcomeRunning, store.StageScript, "done done skipped running waiting waiting waiting")
	p.script().expect(store.OutcomeRunning, store.StageScript, "done done skipped done waiting waiting waiting")
	if len(p.all) != 1 {
		t.Errorf("%d attempts", len(p.all))
	}
}

// What was never promised anything has not failed.
func TestABootOfAMachineThatIsNotEnrolledEndsWithoutFailure(t *testing.T) {
	waits := func() *tape {
		return newTape(t).dora(ipxeBIOS, "").see(9, store.EventScriptWaiting, store.Detail{}).see(5000, store.EventScriptWaiting, store.Detail{})
	}
	const stopped = "done done skipped failed waiting waiting waiting"
	p := waits().quiet(61*time.Second).expect(store.OutcomeNotEnrolled, store.StageScript, stopped).detail(store.StageScript, "It waited to be enrolled; then nothing for 60 s")
	// A packet that comes late turns it back, and a script leads on as ever.
	p.see(5000, store.EventScriptWaiting, store.Detail{}).expect(store.OutcomeRunning, store.StageScript, "done done skipped running waiting waiting waiting")
	p.script().quiet(31*time.Second).expect(store.OutcomeFailed, store.StageLogin, "done done skipped done failed waiting waiting")

	p = waits().see(5000, store.EventDHCPDiscover, firmwareUEFI)
	if len(p.all) != 2 || p.all[0].Outcome != store.OutcomeNotEnrolled || p.s.Outcome != store.OutcomeRunning {
		t.Errorf("started over while it waited: %d attempts, the first is %s", len(p.all), p.all[0].Outcome)
	}
	newTape(t).dora(ipxeBIOS, "").see(9, store.EventIgnoredMachine, store.Detail{}).expect(store.OutcomeNotEnrolled, store.StageScript, stopped)
	// One that never came to ask is as broken as any other.
	newTape(t).dora(firmwareUEFI, "snponly.efi").quiet(time.Minute).expect(store.OutcomeFailed, store.StageLoader, "done done failed waiting waiting waiting waiting")
}

func TestTheSameEventsAlwaysGiveTheSameAttempt(t *testing.T) {
	a, b := biosBoot(newTape(t)), biosBoot(newTape(t))
	if a.s.summary() != b.s.summary() || a.s.Snapshot().Updated != b.s.Snapshot().Updated {
		t.Error("two folds of one tape differ")
	}
	before := a.s.Snapshot()
	a.s.Fold(store.Event{Seq: 3, At: a.at, Kind: store.EventISCSIRefused})
	if after := a.s.Snapshot(); after.Outcome != before.Outcome || after.LastSeq != before.LastSeq {
		t.Error("an event that was folded already changes something")
	}
}

func TestARestoredAttemptKnowsWhatBelongsToIt(t *testing.T) {
	p := biosBoot(newTape(t))
	s := Restore(p.s.Snapshot())
	if !Begins(s, store.Event{Kind: store.EventDHCPDiscover, At: p.at.Add(time.Hour), Detail: ipxeBIOS}) {
		t.Error("the next boot is taken for a part of the one before")
	}
	if Begins(s, store.Event{Kind: store.EventDHCPDiscover, At: p.at.Add(time.Hour), Detail: linux}) {
		t.Error("an operating system's DHCP begins an attempt")
	}
	running := newTape(t).dora(ipxeBIOS, "").script()
	s = Restore(running.s.Snapshot())
	if !Begins(s, store.Event{Kind: store.EventDHCPDiscover, At: running.at.Add(time.Minute), Detail: ipxeBIOS}) {
		t.Error("an iPXE that starts over is taken for the same boot")
	}
	s.Resume(running.at.Add(time.Hour))
	if s.Expire(running.at.Add(time.Hour+29*time.Second), Usual{}) {
		t.Error("silence while nobody listened counts")
	}
}

func TestSlowStagesAreMarked(t *testing.T) {
	usual := UsualOf([]store.Attempt{uefiBoot(newTape(t)).s.Snapshot()})
	p := uefiBoot(newTape(t))
	p.s.MarkSlow(usual)
	p.expect(store.OutcomeUp, store.StageUp, "done done done done done done done")
	p.s.stage(store.StageLoader).Ended = p.s.stage(store.StageLoader).At.Add(9 * time.Second)
	p.s.MarkSlow(usual)
	p.expect(store.OutcomeUp, store.StageUp, "done done slow done done done done")
}

func TestAmountsReadAsPeopleSayThem(t *testing.T) {
	for n, want := range map[int64]string{0: "0 bytes", 999: "999 bytes", 1000: "1.0 kB", 268_000: "268 kB", 18_400_000: "18 MB", 1_240_000_000: "1.2 GB", 999_600: "1.0 MB"} {
		if got := Amount(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
	if grouped(173792) != "173,792" || grouped(7) != "7" || grouped(1234567) != "1,234,567" {
		t.Error("grouping")
	}
}

func TestTheISIDOfIPXE(t *testing.T) {
	for isid, want := range map[string]bool{"400027231234": true, "40:00:27:23:12:34": true, "00023d000001": false, "": false, "4000": false} {
		if IPXEISID(isid) != want {
			t.Errorf("%q", isid)
		}
	}
}

// The switch port slept: the boot goes well, and there is something to say.
func TestAFirstQuestionThatIsLateIsTrouble(t *testing.T) {
	late := firmwareUEFI
	late.Secs = 28
	if !newTape(t).see(0, store.EventDHCPDiscover, late).s.Trouble() {
		t.Error("a first DISCOVER after 28 s is taken for normal")
	}
	if newTape(t).see(0, store.EventDHCPDiscover, firmwareUEFI).see(28000, store.EventDHCPDiscover, late).s.Trouble() {
		t.Error("a repeated DISCOVER is taken for the first one")
	}
}

// A read whose answer never arrives ends an iPXE's session after 15 s, and it
// logs in anew, for ever: without a word from it that would look like progress.
func TestAnIPXEThatLogsInAgainAndAgainHasFailed(t *testing.T) {
	p := newTape(t).dora(ipxeBIOS, "").script()
	again := func(n int, read int64) {
		id, name := fmt.Sprintf("4000272300%02x", n), fmt.Sprintf("s%d", n)
		p.login(id, name).io(700, id, name, read).see(14500, store.EventISCSIClosed, iscsi(id, name))
	}
	again(1, 2048)
	again(2, 2048)
	p.expect(store.OutcomeRunning, store.StageUp, "done done skipped done done done running")
	again(3, 2048)
	p.expect(store.OutcomeFailed, store.StageRead, "done done skipped done done failed waiting")
	if d := p.s.stage(store.StageRead).Detail; !strings.Contains(d, "Logged in 3 times") {
		t.Error(d)
	}
	again(4, 2048)
	p.expect(store.OutcomeFailed, store.StageRead, "done done skipped done done failed waiting")
	again(5, 18e6) // the link was mended
	p.expect(store.OutcomeRunning, store.StageUp, "done done skipped done done done running")
	p.login(osID, "os").expect(store.OutcomeUp, store.StageUp, "done done skipped done done done done")
}

// A boot loader that resets its disks logs in to each of them at once; one that
// waits at a menu does so later, and only once.
func TestLoginsThatBelongToABootAreNoTrouble(t *testing.T) {
	for name, pauses := range map[string][]int{"two disks, each reset": {100, 200, 100, 200}, "a menu": {25000, 200}, "three in a row": {1000, 1000, 1000, 1000}} {
		p := newTape(t).dora(ipxeBIOS, "").script()
		for i, ms := range pauses {
			id := fmt.Sprintf("4000272300%02x", i)
			p.see(ms, store.EventISCSILogin, iscsi(id, id)).see(5, store.EventISCSIFirstRead, iscsi(id, id)).io(10, id, id, 512)
		}
		if p.s.Outcome != store.OutcomeRunning || p.s.Trouble() {
			t.Errorf("%s: %s, trouble %v", name, p.s.Outcome, p.s.Trouble())
		}
	}
}

// The line that failed is the operator's, and what it does is a login.
func TestALineThatLogsInFailsAtTheLogin(t *testing.T) {
	p := newTape(t).dora(ipxeBIOS, "").see(300, store.EventScriptSent, store.Detail{Profile: "mine", Key: "key",
		Script: "#!ipxe\nifopen || goto lunboot_1\nsanboot iscsi:10.77.0.9:::2:iqn.x || goto lunboot_2\n"})
	p.see(16000, store.EventReport, store.Detail{Step: "line-2", Code: "4c0a6035"}).expect(store.OutcomeFailed, store.StageLogin, "done done skipped done failed waiting waiting")
	p = newTape(t).dora(ipxeBIOS, "").see(300, store.EventScriptSent, store.Detail{Profile: "mine", Key: "key", Script: "#!ipxe\nifopen || goto lunboot_1\n# iscsi:\n"})
	p.see(16000, store.EventReport, store.Detail{Step: "line-1", Code: "38086101"}).expect(store.OutcomeFailed, store.StageScript, "done done skipped failed waiting waiting waiting")
}

// A sample counts what was read before a write failed.
func TestASampleDoesNotUndoAFailureThatCameAfterIt(t *testing.T) {
	failed := iscsi(ipxeID, "s1")
	failed.Sense, failed.Reason = "07/27/00", "the volume may not be written"
	p := newTape(t).dora(ipxeBIOS, "").script().login(ipxeID, "s1").see(50, store.EventISCSIIOFailed, failed).expect(store.OutcomeFailed, store.StageUp, "done done skipped done done done failed")
	p.io(9000, ipxeID, "s1", 3584).expect(store.OutcomeFailed, store.StageUp, "done done skipped done done done failed")
	p.io(1000, ipxeID, "s1", 3584).expect(store.OutcomeFailed, store.StageUp, "done done skipped done done done failed")
	p.io(1000, ipxeID, "s1", 9e6).expect(store.OutcomeRunning, store.StageUp, "done done skipped done done done running")
}

// The newest script says whether a boot is the machine's own: somebody else who asks
// in its name makes it nobody's.
func TestABootIsOwnedByWhomItsNewestScriptWentTo(t *testing.T) {
	local := func(owned bool) store.Detail {
		return store.Detail{Profile: "local", Script: "#!ipxe\nexit\n", Owned: owned}
	}
	p := newTape(t).dora(ipxeBIOS, "").see(9, store.EventScriptSent, local(true)).quiet(4 * time.Minute)
	if p.s.Outcome != store.OutcomeUpUnconfirmed || !p.s.Owned {
		t.Errorf("%s, owned %v", p.s.Outcome, p.s.Owned)
	}
	if p.see(9, store.EventScriptSent, local(false)); p.s.Owned {
		t.Error("it was asked for from somewhere else")
	}
}
