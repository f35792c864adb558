pub mod cron_job;
pub mod job;
mod job_policies;
mod job_rules;
mod job_status;
