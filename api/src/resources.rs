//! Names of resources.

/// Names of memory in large pieces begin like this, and end with the size of a piece.
pub const HUGE_PAGES: &str = "hugepages-";

/// Whether a pod as a whole can ask for it (KEP-2837; component-helpers `IsSupportedPodLevelResource`).
pub fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with(HUGE_PAGES)
}
