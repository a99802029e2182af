package power

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"

	"lunboot/store"
)

func TestAnOrderFitsTheMachineThatItIsFor(t *testing.T) {
	const on, off = store.PowerStateOn, store.PowerStateOff
	for _, c := range []struct {
		act  store.PowerAct
		is   store.PowerState
		want store.PowerAct
	}{
		{store.PowerOn, off, store.PowerOn}, {store.PowerOn, on, ""}, {store.PowerOn, store.PowerUnknown, store.PowerOn},
		{store.PowerOff, on, store.PowerOff}, {store.PowerOff, off, ""}, {store.PowerShutdown, off, ""},
		{store.PowerCycle, on, store.PowerCycle}, {store.PowerCycle, off, store.PowerOn}, {store.PowerReset, on, store.PowerReset},
	} {
		if got, err := fitting(store.Machine{Name: "lab-01"}, c.act, c.is); got != c.want || err != nil {
			t.Errorf("%s of one that is %q comes to %q, %v; want %q", c.act, c.is, got, err, c.want)
		}
	}
	if _, err := fitting(store.Machine{Name: "lab-01"}, store.PowerReset, off); store.KindOf(err) != store.KindConflict {
		t.Errorf("a reset of a machine that is off: %v", err)
	}
}

func TestAMachineWithoutABMCIsTold(t *testing.T) {
	c := NewController(slog.New(slog.DiscardHandler))
	_, err := c.State(t.Context(), store.Machine{Name: "lab-01"})
	if store.KindOf(err) != store.KindConflict || !strings.Contains(err.Error(), "--bmc redfish://") {
		t.Error(err)
	}
}

// One order at a time: two that cross would leave a machine as neither meant it.
func TestAMachineHasOneOrderAtATime(t *testing.T) {
	silent, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	c := NewController(slog.New(slog.DiscardHandler))
	m := store.Machine{ID: 7, Name: "lab-01", BMC: store.BMC{Protocol: store.BMCIPMI, Address: silent.LocalAddr().String(), User: "ana", Secret: "x"}}
	never := func() error { return errors.New("it was ready") }
	first := make(chan error, 1)
	go func() {
		_, err := c.Order(context.Background(), m, store.PowerOrder{Act: store.PowerOn}, never)
		first <- err
	}()
	if _, _, err := silent.ReadFrom(make([]byte, 64)); err != nil { // the first speaks to its BMC
		t.Fatal(err)
	}
	if _, err := c.Order(t.Context(), m, store.PowerOrder{Act: store.PowerOff}, never); store.KindOf(err) != store.KindConflict {
		t.Errorf("a second order: %v", err)
	}
	silent.Close()
	if err := <-first; store.KindOf(err) != store.KindUnavailable {
		t.Errorf("the first: %v", err)
	}
	if _, err := c.Order(t.Context(), m, store.PowerOrder{Act: store.PowerOff}, never); store.KindOf(err) == store.KindConflict {
		t.Errorf("one after it: %v", err)
	}
}
