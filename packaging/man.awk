# Makes of a page in doc/ what go-md2man makes a man page of: sections one level
# up, links as their text, with the file where that is no man page, and tables as
# lists, since a cell is not wrapped.
# The pages of the packages are called so that they are nobody else's.
NR == 1 { next }
{
	gsub(/authorized_keys\(5\)/, "signerd-authorized_keys(5)")
	gsub(/ledger\(5\)/, "signerd-ledger(5)")
}
/^## / { sub(/^#/, "") }
# What stands indented before all else is the synopsis.
!begun && NF {
	begun = 1
	head = /^    / ? "# SYNOPSIS" : "# DESCRIPTION"
	synopsis = /^    /
	print head "\n"
}
synopsis && NF && !/^    / {
	synopsis = 0
	print "# DESCRIPTION\n"
}
{
	while (match($0, /\[[^]]*\]\([^)]*\)/)) {
		before = substr($0, 1, RSTART - 1)
		link = substr($0, RSTART + 1, RLENGTH - 2)
		after = substr($0, RSTART + RLENGTH)
		split(link, part, /\]\(/)
		if (part[2] ~ /^[a-z]*\.md/)
			part[1] = part[1] " (/usr/share/doc/signerd/" part[2] ")"
		$0 = before part[1] after
	}
}
/^\|/ {
	rows++
	if (rows <= 2)
		next # the heads, and the line below them
	gsub(/\\\|/, "\001")
	n = split(substr($0, 2), cell, "|")
	for (i = 1; i < n; i++) {
		gsub(/^ +| +$/, "", cell[i])
		gsub("\001", "|", cell[i])
	}
	text = ""
	for (i = 2; i < n; i++)
		if (cell[i] != "")
			text = text (text == "" ? "" : "; ") cell[i]
	printf "%s\n: %s\n\n", cell[1], text
	next
}
{ rows = 0; print }
