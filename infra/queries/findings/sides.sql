-- On which side are findings, and of how many is no side said?
SELECT lower(term) AS finding, count(*) FILTER (side = 'left') AS on_left, count(*) FILTER (side = 'right') AS on_right,
    count(*) FILTER (side = 'bilateral') AS bilateral, count(*) FILTER (side IS NULL) AS not_said
FROM findings WHERE NOT negated
GROUP BY ALL ORDER BY count(*) DESC, finding
