"""What is wrong with labelled images: ``convit check``.

check.py         start here: from the argument DATA to a report
pictures.py      the images of all splits, with their numbers; measuring.py decodes each once and measures it
near.py          nearly the same pictures, by a perceptual hash; faults.py, all other faults that need no model
confidence.py    confident learning: which labels are probably wrong, from out-of-fold predictions; predictions.py,
                 where these come from
report.py        what was found, as values and as JSON; page.py, as one HTML page, from the parts in pages/check/
cleaned.py       the list of what is left without the faults
"""
