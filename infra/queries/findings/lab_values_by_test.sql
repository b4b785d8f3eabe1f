-- How are the values of each test distributed, where they are numbers?
SELECT lower(test) AS test, lower(unit) AS unit, count(*) AS times, min(number) AS least, median(number) AS middle,
    max(number) AS greatest
FROM lab_values WHERE number IS NOT NULL
GROUP BY ALL ORDER BY times DESC, test, unit
