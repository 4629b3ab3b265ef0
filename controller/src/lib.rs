//! The controllers: one folder each, all a plan from a snapshot
