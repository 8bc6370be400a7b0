package crashpoint

// Around does something between two places, "before" and "after".
func Around(do func() error) error {
	Here("before")
	if err := do(); err != nil {
		return err
	}
	Here("after")
	return nil
}
