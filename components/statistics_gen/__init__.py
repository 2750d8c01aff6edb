"""StatisticsGen: TFX's own, which computes in this process where Beam would not spread the work anyway."""
