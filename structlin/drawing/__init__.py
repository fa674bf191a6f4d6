"""One language of charts for laws and figures: plain numbers (drawing), ink (paint), pages (charts, sheet)."""
