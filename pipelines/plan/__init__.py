"""Every random decision of the data path, as a pure function of (seed, epoch, sample, view)."""

from pipelines.plan.plan import BatchPlan, Plan

__all__ = ["BatchPlan", "Plan"]
