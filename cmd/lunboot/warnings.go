package main

// banner shows text on every page until it is taken back with an empty one.
func (a *appliance) banner(subject, text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if text == "" {
		delete(a.banners, subject)
	} else {
		a.banners[subject] = text
	}
}

// trouble is what the banners say of an interface's DHCP, "" for nothing.
func (a *appliance) trouble(ifname string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, subject := range []string{"rival " + ifname, "dhcp " + ifname, "dhcp"} {
		if text := a.banners[subject]; text != "" {
			return text
		}
	}
	return ""
}

func (a *appliance) onState(name string, healthy bool, err error) {
	if healthy {
		a.banner("service "+name, "")
		return
	}
	text := name + " is stopped and will be started again"
	if err != nil {
		text += ": " + err.Error()
	}
	a.banner("service "+name, text)
}

// warnings is what every page shows: the banners, and what is wrong with volumes.
func (a *appliance) warnings() (out []string) {
	for _, f := range a.pool.Faults() {
		out = append(out, "Volume "+f.Volume+": "+f.Sentence)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, text := range a.banners {
		out = append(out, text)
	}
	return out
}
