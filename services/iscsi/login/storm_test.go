package login

import (
	"testing"

	"lunboot/services/iscsi/pdu"
	"lunboot/store"
)

// Each key has a place of its own among those that were sent.
func TestEveryKeyIsSeenForItself(t *testing.T) {
	var seen seenKeys
	names := []string{"X-one", "X-two"} // that nobody knows
	for name := range keys {
		names = append(names, name)
	}
	for _, name := range names {
		if seen.has(name, keys[name]) {
			t.Errorf("%s is seen before it came", name)
		}
		seen.add(name, keys[name])
	}
	for _, name := range names {
		if !seen.has(name, keys[name]) {
			t.Errorf("%s is not seen the second time", name)
		}
	}
}

// A storm of boots is a storm of logins: one is answered from a handful of
// allocations, however many keys it has.
func TestALoginAllocatesLittle(t *testing.T) {
	first := txt("InitiatorName="+ipxe, "InitiatorAlias=rack-1", "SessionType=Normal", "TargetName="+string(us), "AuthMethod=None")
	second := txt("HeaderDigest=None", "DataDigest=None", "MaxRecvDataSegmentLength=262144", "FirstBurstLength=262144", "MaxBurstLength=1048576",
		"InitialR2T=No", "ImmediateData=Yes", "MaxOutstandingR2T=8", "ErrorRecoveryLevel=0", "DefaultTime2Wait=2", "DefaultTime2Retain=0", "MaxConnections=1")
	cfg := machine(t, Access{Auth: store.AuthNone}).cfg
	n := testing.AllocsPerRun(100, func() {
		m := New(cfg)
		q := request(0, 1)
		q.Data = first
		m.Step(q)
		q = request(1, 3)
		q.Data = second
		if r := m.Step(q); r.Status != pdu.LoginSuccess || m.State() != Done {
			t.Fatal(r.Status)
		}
	})
	// The machine, and of each request its text, its pairs and its answer; the
	// two names; the numbers of more than two digits; the offers of digests.
	const most = 20
	if n > most {
		t.Errorf("%.0f allocations, at most %d", n, most)
	}
}
