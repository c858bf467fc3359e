"""A finished run as one HTML page: read (reading), scored by type (scores), its errors named
(matching), gathered by sentence (sentences) and told how sure it was of them (confidence), its
course (course) drawn (charts), and all of it written (browser, page; page.html, page.css, page.js).

No torch in here: a report is quick, and needs no machine that can train.
"""
