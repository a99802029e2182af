package inventory

import (
	"context"

	"lunboot/store"
)

// trustSubnet adds a network to those whose every address is given scripts with
// passwords.
func (i *Inventory) trustSubnet(ctx context.Context, by store.Actor, network string) (store.FixResult, error) {
	i.acts.Lock() // of two at once, both count
	defer i.acts.Unlock()
	is, err := store.SettingValue(ctx, i.db, store.SettingTrustedSubnets)
	if err != nil {
		return store.FixResult{}, err
	}
	all, err := store.ParseNetworks(network)
	if err != nil {
		return store.FixResult{}, err
	}
	have, err := store.ParseNetworks(is)
	if err != nil {
		return store.FixResult{}, err
	}
	for _, p := range all {
		for _, o := range have {
			if o.Bits() <= p.Bits() && o.Contains(p.Addr()) {
				return store.FixResult{OK: true, Says: p.String() + " is trusted already, within " + o.String()}, nil
			}
		}
	}
	if is != "" {
		network = is + "," + network
	}
	s := store.Setting{Key: store.SettingTrustedSubnets, Value: network}
	if err := s.Validate(); err != nil {
		return store.FixResult{}, err
	}
	return done(i.db.PutSetting(ctx, by, string(s.Key), s.Value), "every address of %s is given scripts", all[0])
}
