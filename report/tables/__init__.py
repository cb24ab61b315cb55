"""Tables of results: `logs` reads log.txt as CoOp's script does; all else reads results.json.

`runs` says what each run is, `cells` puts them into rows and columns, `numbers` has the statistics, `paired` McNemar's
test, `render` the formats. Plain Python, numpy and tabulate.
"""
