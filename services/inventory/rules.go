package inventory

import (
	"context"
	"fmt"

	"lunboot/store"
)

// PutProfile adds a profile or changes the one of that name, after it was
// rendered once with sample facts: a machine never meets a script that was
// never made.
func (i *Inventory) PutProfile(ctx context.Context, by store.Actor, p store.Profile) (store.Profile, error) {
	if err := p.Validate(); err != nil {
		return store.Profile{}, err
	}
	if i.renderer != nil {
		if err := i.renderer.Check(ctx, p); err != nil {
			return store.Profile{}, err
		}
	}
	i.acts.Lock()
	defer i.acts.Unlock()
	if err := i.expectedProfile(ctx, p.Name); err != nil {
		return store.Profile{}, err
	}
	return i.db.PutProfile(ctx, by, p)
}

// DeleteProfile removes a profile that no machine has.
func (i *Inventory) DeleteProfile(ctx context.Context, by store.Actor, name string) error {
	i.acts.Lock()
	defer i.acts.Unlock()
	if err := i.expectedProfile(ctx, name); err != nil {
		return err
	}
	return i.db.DeleteProfile(ctx, by, name)
}

// expectedProfile refuses an act on a profile that changed meanwhile.
func (i *Inventory) expectedProfile(ctx context.Context, name string) error {
	p, err := i.db.Profile(ctx, name)
	if seen := store.Expected(ctx, "profile", name); store.IsNotFound(err) && seen != 0 {
		return store.Stale("profile", name, 0, seen) // else a change would make anew what somebody removed
	}
	if store.IsNotFound(err) {
		return nil // the act says so in its own words
	}
	if err != nil {
		return err
	}
	return store.CheckExpected(ctx, "profile", name, name, p.Revision)
}

// PutSetting changes a setting that an operator may change.
func (i *Inventory) PutSetting(ctx context.Context, by store.Actor, s store.Setting) error {
	if err := s.Validate(); err != nil {
		return err
	}
	i.acts.Lock()
	defer i.acts.Unlock()
	if s.Key == store.SettingDefaultGolden {
		if err := i.checkDefaultGolden(ctx, s.Value); err != nil {
			return err
		}
	}
	return i.db.PutSetting(ctx, by, string(s.Key), s.Value)
}

// PutSubnet adds or changes a subnet. Subnets of one appliance do not overlap:
// an address would belong to both.
func (i *Inventory) PutSubnet(ctx context.Context, by store.Actor, s store.Subnet) (store.Subnet, error) {
	if err := s.Validate(); err != nil {
		return store.Subnet{}, err
	}
	s.Prefix = s.Prefix.Masked()
	i.acts.Lock()
	defer i.acts.Unlock()
	all, err := i.db.Subnets(ctx)
	if err != nil {
		return store.Subnet{}, err
	}
	for _, o := range all {
		if o.ID == s.ID {
			if err := store.CheckExpected(ctx, "subnet", fmt.Sprint(o.ID), o.Name(), o.Revision); err != nil {
				return store.Subnet{}, err
			}
		}
		same := o.ID == s.ID || s.ID == 0 && o.Interface == s.Interface && o.Prefix == s.Prefix
		if !same && o.Prefix.Overlaps(s.Prefix) {
			on := ""
			if o.Interface != "" {
				on = " on " + o.Interface
			}
			return store.Subnet{}, store.Conflict("prefix", "%s overlaps with the subnet %s%s", s.Prefix, o.Prefix, on)
		}
	}
	return i.db.PutSubnet(ctx, by, s)
}

// DeleteSubnet removes a subnet. Leases that were given stay until they end.
func (i *Inventory) DeleteSubnet(ctx context.Context, by store.Actor, id int64) error {
	i.acts.Lock()
	defer i.acts.Unlock()
	all, err := i.db.Subnets(ctx)
	if err != nil {
		return err
	}
	for _, o := range all {
		if o.ID != id {
			continue
		}
		if err := store.CheckExpected(ctx, "subnet", fmt.Sprint(o.ID), o.Name(), o.Revision); err != nil {
			return err
		}
	}
	return i.db.DeleteSubnet(ctx, by, id)
}
