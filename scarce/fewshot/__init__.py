"""Few-shot evaluation: patient-disjoint episodes, frozen-feature probes, baselines and their statistics."""
