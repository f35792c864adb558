pub mod delete_options;
