package lab

// Appliance is a lunboot that serves the lab.
type Appliance struct{}

func (a *Appliance) Kill() {}
