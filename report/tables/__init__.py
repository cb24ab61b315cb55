"""Tables of results: `logs` reads log.txt as CoOp's script does; all else reads results.json.

`records` finds results.json (`old_records` what earlier ones do not say), `origins` who has trained what was tested,
`runs` says what each is, `grid` puts them into rows and columns, `numbers` has the statistics, `paired` McNemar's test,
`render` the formats. Plain Python, numpy and tabulate.
"""
