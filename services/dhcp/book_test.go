package dhcp

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"lunboot/store"
)

func TestAnAddressOfferedAnewIsNoLongerThatOfTheFirstMachine(t *testing.T) {
	b := newBook()
	a, other := ip("10.77.0.100"), ip("10.77.0.101")
	b.keep(mac(1), a, noon.Add(offerLife))
	later := noon.Add(2 * offerLife)
	b.keep(mac(2), a, later.Add(offerLife)) // the first machine never came back for it

	assert.False(t, b.of(mac(1), later).IsValid(), "the first machine must not be told that it is still its")
	b.keep(mac(1), other, later.Add(offerLife))
	assert.Equal(t, mac(2), b.holder(a, later), "the first machine took the second one's address away")
	b.forget(mac(1))
	assert.Equal(t, a, b.of(mac(2), later))
}

func TestTheBookForgetsWhoWasOfferedAnAddressBefore(t *testing.T) {
	b := newBook()
	for i := range 1000 {
		b.keep(mac(i+1), ip("10.77.0.100"), noon.Add(time.Duration(i)*offerLife))
	}
	assert.Equal(t, map[store.MAC]netip.Addr{mac(1000): ip("10.77.0.100")}, b.byMAC)
}
