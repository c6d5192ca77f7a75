"""The page. Nothing else imports gradio."""
