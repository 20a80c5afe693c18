"""Large seeded runs of what comes in broken; each prints counts. A short part of each is a test."""
