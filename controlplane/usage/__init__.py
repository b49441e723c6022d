"""What was asked, decided and spent: questions over decision records."""
