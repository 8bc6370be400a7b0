package wire

import (
	"encoding/json"
	"fmt"
	"time"
)

// ClusterStatus is the answer to get-status, JSON.
type ClusterStatus struct {
	Cluster     string             `json:"cluster"`
	Time        time.Time          `json:"time"` // of the signer's clock
	Generations []GenerationStatus `json:"generations"`
	Members     []MemberStatus     `json:"members"`
	Names       []NameStatus       `json:"names,omitempty"` // only for keys that may release them
}

// ParseClusterStatus reads an answer to get-status, whoever gave it.
func ParseClusterStatus(answer []byte) (*ClusterStatus, error) {
	s := &ClusterStatus{}
	if err := json.Unmarshal(answer, s); err != nil {
		return nil, fmt.Errorf("what answers is no signer: %w", err)
	}
	if _, err := ParseClusterID(s.Cluster); err != nil { // it becomes part of paths
		return nil, fmt.Errorf("what answers is no signer: its cluster: %w", err)
	}
	return s, nil
}

// GenerationStatus is one key of the CA.
type GenerationStatus struct {
	Role        string    `json:"role"` // active, passive or inactive
	Fingerprint string    `json:"fingerprint"`
	NotAfter    time.Time `json:"not_after"`
	Cross       bool      `json:"cross,omitempty"` // what it signs leads to the CA before it too
}

// Equal says whether two are the same.
func (g GenerationStatus) Equal(other GenerationStatus) bool {
	return g.Role == other.Role && g.Fingerprint == other.Fingerprint && g.Cross == other.Cross
}

// MemberStatus is one member of etcd.
type MemberStatus struct {
	Name    string `json:"name"` // empty until it has started
	ID      string `json:"id"`   // as etcdctl member list prints it
	Learner bool   `json:"learner"`
	Healthy bool   `json:"healthy"`
}

// NameStatus is a name that a certificate holds, or whose certificate should have
// been renewed.
type NameStatus struct {
	Name     string    `json:"name"`
	NotAfter time.Time `json:"not_after"`
	Missed   bool      `json:"missed,omitempty"` // it should have been renewed by now, and was not
}
